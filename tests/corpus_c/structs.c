/* Structs, unions, bit-fields, copies, arrays in structs, nested and anonymous members, designated initialisers. */
struct point { int x, y; };
struct bits { u32 a : 3; s32 b : 5; u32 : 4; u32 c : 20; u64 d : 33; u8 e : 2, f : 6; _Bool g : 1; };
union number { u64 whole; u32 half[2]; u8 byte[8]; struct { u16 low; s16 next; }; };
struct outer { u8 kind; struct point p[3]; union number n; struct { char tag; u16 count; }; char name[5]; u64 last; };
struct __attribute__((packed)) tight { u8 a; u32 b; u64 c; };
static struct point add(struct point a, struct point b) { struct point r = { a.x + b.x, a.y + b.y }; return r; }
static void move(struct point *p, int by) { p->x += by; p->y -= by; }
static int sum(const struct outer *o) { int s = 0; for (int i = 0; i < 3; i++) s += o->p[i].x * (i + 1) + o->p[i].y; return s; }
long test(long *io)
{
    int i = 8;
    struct point p = { io[0], .y = io[1] }, q = p;
    move(&q, 7);
    p = add(p, q);
    io[i++] = p.x;
    io[i++] = p.y;
    io[i++] = add((struct point){ 1, 2 }, q).x;
    struct bits b = {};
    b.a = io[0];
    b.b = io[1];
    b.c = io[2];
    b.d = io[3];
    b.e = io[0];
    b.f = io[1];
    b.g = io[2];
    io[i++] = b.a;
    io[i++] = b.b;
    io[i++] = b.c;
    io[i++] = b.d;
    io[i++] = b.e + b.f * 10 + b.g * 100;
    b.a += 3;
    b.b--;
    io[i++] = b.a + b.b++;
    io[i++] = b.b;
    io[i++] = (b.d = io[0]);
    io[i++] = sizeof(b);
    union number n = { .whole = io[0] };
    io[i++] = n.half[1] + n.byte[3];
    n.byte[io[1] & 7] = 0xa5;
    io[i++] = n.whole;
    io[i++] = n.low + n.next;
    struct outer o = { .kind = 3, .p = { [1] = { 4, 5 }, [2].y = io[1] }, .n.whole = io[2], .tag = 'x', .count = io[3], .name = "abcde" };
    io[i++] = sum(&o);
    io[i++] = o.name[4] + o.tag + o.count + o.kind;
    struct outer copy = o;
    copy.p[0] = o.p[1];
    copy.p[io[1] & 1].x = 77;
    io[i++] = sum(&copy) - sum(&o);
    io[i++] = copy.last;
    io[i++] = sizeof(struct outer) + sizeof(struct tight);
    struct tight t = { 1, io[0], io[1] };
    t.b ^= 0xff;
    io[i++] = t.a + t.b + t.c;
    struct point many[4] = { [0 ... 2] = { 1, 2 }, { 3, 4 } };
    io[i++] = many[2].y + many[3].x + many[0].x;
    int matrix[2][3] = { { 1, 2, 3 }, { 4, 5, 6 } };
    io[i++] = matrix[io[0] & 1][2] + matrix[1][io[1] & 1];
    struct point *pp = &many[1];
    pp++;
    io[i++] = pp->y + pp[1].x + (pp - many);
    io[i++] = (&pp[1])->y;
    struct point *found = io[0] & 1 ? &p : &q;
    found->x = 5;
    io[i++] = p.x + q.x;
    p = q = many[3];
    io[i++] = p.x + q.y;
    io[i++] = ((struct outer){ .last = io[0] }).last;
    return i;
}
