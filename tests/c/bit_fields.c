// Bit-fields: signed and not, next to each other, across units, zero width, packed, in unions.
struct flags { unsigned a : 1, b : 3; int c : 5; u8 d : 7; unsigned : 0; unsigned e : 31; int f : 2; _Bool g : 1; unsigned h : 32; };
struct packed { u8 a : 3; u16 b : 11; u32 c : 18; s32 d : 20; } __attribute__((packed));
union view { struct { u32 low : 12, mid : 8, high : 12; }; u32 whole; };
static u64 run(struct io *p)
{
    struct flags x = { .b = p->in[0], .c = p->in[1], .e = p->in[2] };
    struct packed y = { 1, p->in[3], p->in[4], p->in[5] };
    union view v = { .whole = p->in[6] };
    x.a = p->in[3]; x.d = p->in[4]; x.f = p->in[5]; x.g = p->in[6]; x.h = p->in[7];
    p->out[0] = x.a; p->out[1] = x.b; p->out[2] = x.c; p->out[3] = x.d; p->out[4] = x.e; p->out[5] = x.f; p->out[6] = x.g; p->out[7] = x.h;
    p->out[8] = x.c++; p->out[9] = x.c; p->out[10] = x.b += 5; p->out[11] = x.f = 3; p->out[12] = -x.b; p->out[13] = x.e * 2; p->out[14] = ~x.a; p->out[15] = x.c < x.b;
    p->out[16] = y.a; p->out[17] = y.b; p->out[18] = y.c; p->out[19] = y.d; y.b ^= 0x2aa; y.d--; p->out[20] = y.b + y.d;
    p->out[21] = v.low | v.mid << 16; v.mid = 0x5a; v.high += 1; p->out[22] = v.whole; x.f = x.c; p->out[23] = x.f ? x.b : x.c;
    return sizeof(x) + sizeof(y) * 100 + sizeof(v) * 10000;
}
