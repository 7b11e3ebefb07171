// Layout: padding, alignment, packed and aligned attributes, flexible ends, sizes and offsets.
struct plain { u8 a; u32 b; u8 c; u64 d; u16 e; }; struct tight { u8 a; u32 b; u8 c; u64 d; u16 e; } __attribute__((packed)); struct wide { u8 a; u8 b __attribute__((aligned(8))); } __attribute__((aligned(16)));
struct tail { u32 n; u16 data[]; }; struct nest { u8 a; struct plain p; union { u8 x; u32 y; } u; struct tight t; }; struct bits { u8 a : 4; u32 b : 20; u64 c : 33; u8 d; };
struct mixed { char a; _Alignas(4) char b; __int128 c; char d; void *e; }; typedef u32 odd __attribute__((aligned(2))); struct o { u8 a; odd b; };
static u64 run(struct io *p)
{
    struct tight t = { 1, p->in[0], 2, p->in[1], 3 }; struct nest n = { .p.d = p->in[2], .t.b = p->in[3], .u.y = 7 };
    p->out[0] = sizeof(struct plain); p->out[1] = sizeof(struct tight); p->out[2] = sizeof(struct wide) * 100 + _Alignof(struct wide); p->out[3] = sizeof(struct tail); p->out[4] = sizeof(struct nest); p->out[5] = sizeof(struct bits) * 100 + _Alignof(struct bits);
    p->out[6] = __builtin_offsetof(struct plain, d) + __builtin_offsetof(struct tight, d) * 100 + __builtin_offsetof(struct wide, b) * 10000; p->out[7] = __builtin_offsetof(struct tail, data[3]); p->out[8] = __builtin_offsetof(struct nest, t.d); p->out[9] = __builtin_offsetof(struct nest, u.y);
    p->out[10] = sizeof(struct mixed) * 100 + __builtin_offsetof(struct mixed, e); p->out[11] = sizeof(struct o) * 100 + __builtin_offsetof(struct o, b); p->out[12] = t.b; p->out[13] = t.d; t.d++; p->out[14] = t.d; t.e = p->in[4]; p->out[15] = t.e;
    p->out[16] = n.p.d; p->out[17] = n.t.b; p->out[18] = n.u.x; u8 *raw = (u8 *)&t; p->out[19] = raw[0] + raw[5] * 256; p->out[20] = *(u32 *)(raw + 1); p->out[21] = sizeof(n.p) + sizeof(n.t);
    return sizeof(struct { u8 a; u64 b; }) + sizeof(union { u8 a[9]; u32 b; });
}
