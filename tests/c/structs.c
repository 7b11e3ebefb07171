// Structs: nested, copied, passed, returned, compared by member, in arrays, through pointers.
struct point { s16 x, y; };
struct box { struct point from, to; u8 kind; u64 id; };
static struct point middle(struct box b) { struct point m = { (b.from.x + b.to.x) / 2, (b.from.y + b.to.y) / 2 }; b.kind = 99; return m; }
static struct box moved(const struct box *b, int by) { struct box r = *b; r.from.x += by; r.to = r.from; r.id++; return r; }
static void grow(struct box *b) { b->to.x *= 2; b->to.y = b->from.y; b->kind |= 0x80; }
static u64 run(struct io *p)
{
    struct box a = { { p->in[0], p->in[1] }, { .y = p->in[2], .x = p->in[3] }, p->in[4], p->in[5] }, b = a, many[3] = { [1] = a, [2].kind = 7 };
    struct box *q = &many[p->in[6] & 1];
    struct point m = middle(a);
    p->out[0] = m.x; p->out[1] = m.y; p->out[2] = a.kind; b = moved(&a, p->in[6]); p->out[3] = b.from.x; p->out[4] = b.to.y; p->out[5] = b.id;
    grow(&b); p->out[6] = b.to.x; p->out[7] = b.kind; grow(q); p->out[8] = many[0].kind; p->out[9] = many[1].kind; p->out[10] = many[1].to.x; p->out[11] = q->id;
    *q = b; p->out[12] = many[1].id; many[2] = many[p->in[7] & 1]; p->out[13] = many[2].from.x; p->out[14] = middle(moved(&many[2], 5)).x; p->out[15] = (&a)->to.x;
    struct point *r = &q->to; r->x = 1234; p->out[16] = q->to.x; p->out[17] = (*q).from.y; p->out[18] = (p->in[0] & 1 ? a : b).kind; struct { struct point w; int n; } anon = { m, 5 };
    p->out[19] = anon.w.x + anon.n; a = (struct box){ .id = 3 }; p->out[20] = a.from.x + a.kind + a.id; m = a.from = (struct point){ 8, 9 }; p->out[21] = m.y; p->out[22] = sizeof(struct box);
    return b.id + many[0].id + many[1].id;
}
