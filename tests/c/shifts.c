// Shifts: the type is that of the promoted left side; right shifts of signed numbers keep the sign.
static u64 run(struct io *p)
{
    u32 n = p->in[1] & 31, m = p->in[2] & 63;
    s8 a = p->in[0]; u8 b = p->in[0]; s16 c = p->in[0]; s32 d = p->in[0]; u32 e = p->in[0]; s64 f = p->in[0]; u64 g = p->in[0];
    p->out[0] = a >> n; p->out[1] = b >> n; p->out[2] = c >> n; p->out[3] = d >> n; p->out[4] = e >> n; p->out[5] = f >> m; p->out[6] = g >> m;
    p->out[7] = a << (n & 15); p->out[8] = b << n; p->out[9] = d << n; p->out[10] = e << n; p->out[11] = f << m; p->out[12] = g << m;
    p->out[13] = d >> 31; p->out[14] = e >> 31; p->out[15] = f >> 63; p->out[16] = 1u << n; p->out[17] = 1ull << m; p->out[18] = 1 << 31;
    d <<= n; e >>= m & 31; a >>= 3; b <<= 3; f >>= n; g <<= m;
    p->out[19] = d; p->out[20] = e; p->out[21] = a; p->out[22] = b; p->out[23] = f ^ g;
    return (u64)e << 32 | (u32)d;
}
