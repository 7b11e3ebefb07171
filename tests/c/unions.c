// Unions: one memory, several views; anonymous ones inside structs; the order of bytes.
union word { u64 u; s64 s; u32 w[2]; u16 h[4]; u8 b[8]; struct { u32 low; s32 high; } part; };
struct tagged { u8 tag; union { u32 number; struct { u8 r, g, b; }; char text[6]; }; };
static u64 run(struct io *p)
{
    union word x = { p->in[0] }, y;
    struct tagged t = { 2, .number = p->in[1] };
    p->out[0] = x.w[0]; p->out[1] = x.w[1]; p->out[2] = x.h[3]; p->out[3] = x.b[p->in[2] & 7]; p->out[4] = x.s >> 60; p->out[5] = x.part.high; x.b[1] = 0xaa; p->out[6] = x.u;
    y = x; y.h[p->in[3] & 3] = 0x1234; p->out[7] = y.u; p->out[8] = t.r; p->out[9] = t.g << 8 | t.b; t.text[0] = 'x'; p->out[10] = t.number; t.b++; p->out[11] = t.number;
    y.u = 0; for (int i = 0; i < 8; i++) y.b[i] = i * 17; p->out[12] = y.u; p->out[13] = y.part.low; y.part.high = -2; p->out[14] = y.s; p->out[15] = sizeof(t);
    return x.u ^ y.u;
}
