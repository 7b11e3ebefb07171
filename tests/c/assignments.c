// Compound assignments compute in the common type and convert back; increments wrap.
static u64 run(struct io *p)
{
    u8 a = p->in[0]; s8 b = p->in[1]; u16 c = p->in[2]; s16 d = p->in[3]; u32 e = p->in[4]; s64 f = p->in[5]; _Bool t = p->in[6] & 1;
    p->out[0] = a++; p->out[1] = ++a; p->out[2] = b--; p->out[3] = --b; p->out[4] = c += 70000; p->out[5] = d -= a; p->out[6] = e *= -3; p->out[7] = f += e;
    p->out[8] = a ^= f; p->out[9] = b |= c; p->out[10] = c &= ~b; p->out[11] = d = c = b = a; p->out[12] = t++; p->out[13] = t; p->out[14] = t--; p->out[15] = t;
    p->out[16] = (a = 5, b = a + 3, b * 2); p->out[17] = e = f = -1; p->out[18] = (f = e) + 1; a = 255; a += 1; p->out[19] = a; b = 127; b++; p->out[20] = b;
    e = 0; e--; p->out[21] = e; d = -32768; d--; p->out[22] = d; p->out[23] = -d;
    return a + b + c + d + e + f + t;
}
