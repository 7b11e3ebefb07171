// Division and remainder of 128-bit integers: signed, unsigned, small and large on both sides.
static u64 run(struct io *p)
{
    unsigned __int128 a = (unsigned __int128)p->in[0] << 64 | p->in[1], b = (unsigned __int128)(p->in[2] & p->in[3]) << 64 | (p->in[4] | 1), r;
    __int128 c = (__int128)((unsigned __int128)p->in[5] << 64 | p->in[6]) >> 1, d = (s64)(p->in[7] | 1);
    u64 small = p->in[2] | 1;
    r = a / b; p->out[0] = r; p->out[1] = r >> 64; r = a % b; p->out[2] = r; p->out[3] = r >> 64; r = c / d; p->out[4] = r; p->out[5] = r >> 64; r = c % d; p->out[6] = r; p->out[7] = r >> 64;
    r = a / small; p->out[8] = r; p->out[9] = r >> 64; p->out[10] = a % small; r = a; r /= 10; p->out[11] = r; r %= 7; p->out[12] = r; r = (unsigned __int128)p->in[1] / small; p->out[13] = r; p->out[14] = r >> 64;
    p->out[15] = (u64)(((unsigned __int128)p->in[0] * 1000000000) / 3000000000u); p->out[16] = (s64)(-c / 3); p->out[17] = b / a == 0; p->out[18] = (u64)(a / (a | 1)); p->out[19] = (~(unsigned __int128)0 / b) >> 3;
    return (u64)(c % 1000);
}
