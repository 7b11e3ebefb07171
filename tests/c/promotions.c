// Integer promotions and the usual arithmetic conversions: what is signed, how wide, and what is extended how.
static u64 run(struct io *p)
{
    u8 a = p->in[0]; s8 b = p->in[1]; u16 c = p->in[2]; s16 d = p->in[3]; u32 e = p->in[4]; s32 f = p->in[5];
    s64 g = p->in[6]; u64 h = p->in[7]; _Bool t = p->in[0]; char k = p->in[1];
    p->out[0] = a + b; p->out[1] = a - c; p->out[2] = ~a; p->out[3] = -a; p->out[4] = -c; p->out[5] = -e;
    p->out[6] = b < a; p->out[7] = b < e; p->out[8] = f < e; p->out[9] = g < e; p->out[10] = g < h; p->out[11] = d > c;
    p->out[12] = f + e; p->out[13] = f + g; p->out[14] = e + g; p->out[15] = e - f; p->out[16] = a << 24; p->out[17] = (u8)(a << 1);
    p->out[18] = !t + t; p->out[19] = k; p->out[20] = (t ? b : e); p->out[21] = (t ? d : a); p->out[22] = -1 < e; p->out[23] = -1L < e;
    return (a == b) + 2 * (c == d) + 4 * (e == f) + 8 * (g == h);
}
