// Casts and assignments between all widths.
static u64 run(struct io *p)
{
    u64 v = p->in[0];
    s64 w = p->in[1];
    _Bool t; s8 a; u8 b; s16 c; u16 d; s32 e; u32 f;
    t = v; a = v; b = v; c = v; d = v; e = v; f = v;
    p->out[0] = t; p->out[1] = a; p->out[2] = b; p->out[3] = c; p->out[4] = d; p->out[5] = e; p->out[6] = f;
    p->out[7] = (s8)w; p->out[8] = (u8)w; p->out[9] = (s16)w; p->out[10] = (u16)w; p->out[11] = (s32)w; p->out[12] = (u32)w;
    p->out[13] = (u64)(s8)(u8)w; p->out[14] = (u32)(s8)w; p->out[15] = (u16)(s8)w; p->out[16] = (_Bool)(u8)w; p->out[17] = (_Bool)(w & 0x100);
    p->out[18] = (s32)(u16)(s32)w; p->out[19] = (u64)(void *)(u32)w; p->out[20] = (char)w; p->out[21] = (unsigned char)(char)w;
    p->out[22] = a = b = c = w;
    p->out[23] = (t += 2) + (b += 300) + (c -= 70000) + (d *= 3);
    return (u8)(v + w) + (s8)(v - w);
}
