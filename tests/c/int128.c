// Integers of 128 bits: everything but division.
static u64 run(struct io *p)
{
    unsigned __int128 a = (unsigned __int128)p->in[0] << 64 | p->in[1]; __int128 b = (s64)p->in[2], c = -(__int128)p->in[3];
    u32 n = p->in[4] & 127;
    unsigned __int128 r = a * 3 + p->in[5];
    p->out[0] = r; p->out[1] = r >> 64; r = a << n; p->out[2] = r; p->out[3] = r >> 64; r = a >> n; p->out[4] = r; p->out[5] = r >> 64; b >>= n; p->out[6] = b; p->out[7] = b >> 64;
    p->out[8] = b < c; p->out[9] = a > b; p->out[10] = a == (unsigned __int128)c; p->out[11] = (u32)(a ^ c); r = (unsigned __int128)p->in[6] * p->in[7]; p->out[12] = r; p->out[13] = r >> 64; c -= b; p->out[14] = c; p->out[15] = c >> 64;
    p->out[16] = !a; p->out[17] = (a & ~r) >> 32; p->out[18] = ++c > 0; p->out[19] = (s8)c; p->out[20] = a ? 1 : 2; p->out[21] = sizeof(a) + _Alignof(__int128); p->out[22] = (-a) >> 100; p->out[23] = (b | a) != 0;
    return (u64)(a >> 1) + (u64)b;
}
