// Pointers: to locals, parameters, members and elements; arithmetic, comparison with 0, out parameters, pointers in variables.
static int split(u64 v, u32 *high, u32 *low) { *high = v >> 32; *low = v; return *high > *low; }
static void swap(u16 *a, u16 *b) { u16 t = *a; *a = *b; *b = t; }
static u32 total(const u8 *b, int n) { u32 s = 0; for (int i = 0; i < n && i < 8; i++) s += b[i] * (i + 1); return s; }
static u64 *pick(struct io *p, int i) { return i & 1 ? &p->out[1] : p->out; }
static u64 run(struct io *p)
{
    u32 h, l; u16 a = p->in[1], b = p->in[2]; u8 raw[8] = { p->in[0], 2, 3, p->in[3] }; u64 v = p->in[4];
    p->out[2] = split(p->in[0], &h, &l); p->out[3] = h; p->out[4] = l; swap(&a, &b); p->out[5] = a; p->out[6] = b; p->out[7] = total(raw, 4); p->out[8] = total(raw + 2, p->in[5] & 3);
    *pick(p, p->in[6]) = 77; u64 *q = &v; *q += 5; p->out[9] = v; u8 *w = (u8 *)&v; p->out[10] = w[0] + w[7]; w[1] = 0xee; p->out[11] = v; u32 *half = (u32 *)&v + 1; p->out[12] = *half;
    u8 *n = 0; p->out[13] = n ? 1 : 2; p->out[14] = !q; p->out[15] = q && v; n = &raw[1]; p->out[16] = n[1] + *(n + 2) + n[-1]; p->out[17] = (n + 3) - raw; *n++ = 9; *n-- = 8; p->out[18] = raw[1] * 256 + raw[2]; p->out[19] = *n;
    const u64 *in = p->in + 2; p->out[20] = in[0] ^ in[p->in[7] & 3]; struct io *self = p; self->out[21] = (&self->in[3])[1]; void *any = raw; p->out[22] = *(u16 *)any; p->out[23] = (u8 *)any + 3 == &raw[3];
    return (u64)(&((struct io *)0)->out[2]);
}
