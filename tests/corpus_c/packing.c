/* #pragma pack: sizes, alignments and offsets of structs, and members where they lie. */
#define OFFSET(t, m) __builtin_offsetof(struct t, m)
#pragma pack(push, 2)
struct p2 { u8 a; u32 b; u64 c; };
struct q2 { u8 a; u8 b __attribute__((aligned(8))); u32 c : 3; u32 d : 31; u8 e; };
#pragma pack(4)
struct n4 { u8 a; struct p2 x; u64 b : 40; u8 c; __int128 d; };
#pragma pack(pop)
struct none { u8 a; u64 c; };
#pragma pack(1)
struct p1 { u8 a; u64 b; struct none c; };
#pragma pack(8)
struct p8 { u8 a; __int128 d; u32 e : 7; u64 f : 60; };
#pragma pack(16)
struct p16 { u8 a; __int128 d; u8 e __attribute__((aligned(32))); };
#pragma pack()
long test(long *io)
{
    int i = 8;
    struct p2 a = { io[0], io[1], io[2] };
    struct q2 b = { .c = io[0], .d = io[1], .e = io[2] };
    u8 *bytes = (u8 *)&a, *bits = (u8 *)&b;
    io[i++] = sizeof(struct p2) + 100 * _Alignof(struct p2) + 1000 * OFFSET(p2, b);
    io[i++] = sizeof(struct q2) + 100 * OFFSET(q2, b) + 10000 * OFFSET(q2, e);
    io[i++] = sizeof(struct n4) + 100 * OFFSET(n4, x) + 10000 * OFFSET(n4, d);
    io[i++] = sizeof(struct none) + 100 * sizeof(struct p1) + 10000 * OFFSET(p1, c);
    io[i++] = sizeof(struct p8) + 100 * OFFSET(p8, d) + 10000 * _Alignof(struct p8);
    io[i++] = sizeof(struct p16) + 100 * OFFSET(p16, d) + 10000 * OFFSET(p16, e);
    io[i++] = bytes[2] + 1000 * bytes[6];
    io[i++] = bits[4] + 1000 * bits[5];
    a.b++;
    b.d += 3;
    io[i++] = a.b + a.c + b.c;
    io[i++] = b.d;
    return b.e;
}
