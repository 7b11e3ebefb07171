// Division and remainder: signed ones round to zero, the remainder has the sign of the dividend.
static u64 run(struct io *p)
{
    s64 a = p->in[0]; u64 b = p->in[0]; s32 c = p->in[1]; u32 d = p->in[1]; s8 e = p->in[2]; u16 f = p->in[3];
    u64 n = p->in[4] | 1; u32 m = (u32)p->in[5] | 1; s32 k = (p->in[6] & 15) + 1;
    p->out[0] = a / 7; p->out[1] = a % 7; p->out[2] = b / 7; p->out[3] = b % 7; p->out[4] = c / 7; p->out[5] = c % 7; p->out[6] = d / 7; p->out[7] = d % 7;
    p->out[8] = a / -3; p->out[9] = a % -3; p->out[10] = c / -10; p->out[11] = c % -10; p->out[12] = e / 4; p->out[13] = e % 4; p->out[14] = f / 3; p->out[15] = f % 8;
    p->out[16] = b / n; p->out[17] = b % n; p->out[18] = d / m; p->out[19] = d % m; p->out[20] = a / k; p->out[21] = c % k; p->out[22] = a / 16; p->out[23] = a % 16;
    c /= k; a %= 1000; e /= 2; d /= 16; f %= 10;
    return a + c * 3 + e * 5 + d + f;
}
