// Loops that end where a pointer reaches an address in a variable, `while` over pointers, backwards, over structs.
struct pair { u16 a, b; };
static u32 table[8] = { 1, 2, 3, 4, 5, 6, 7, 8 };
static __attribute__((noinline)) u32 hash(const u8 *p, u32 size) { const u8 *end = p + (size & 15); u32 h = 7; while (p < end) h = h * 31 + *p++; return h; }
static __attribute__((always_inline)) u32 words(char *p, char *end) { u32 n = 0; char *start = p; for (; p - start < 12; ++p) n += *p == ' '; return n; }
static u64 run(struct io *p)
{
    char text[16] = "some words"; char *end = text + sizeof(text), *q; u64 n = 0; struct pair pairs[5] = { { 1, 2 }, { 3, 4 }, { 5, 6 }, { 7, 8 }, { 9, 10 } }; struct pair *pe = pairs + 5, *pp = pairs; u32 *t = table, *te = &table[8];
    for (q = text; q < end; q++) n += *q; p->out[0] = n; for (char *r = text; r != end; r++) { if (!*r) break; n++; } p->out[1] = n; while (pp < pe) { n += pp->a * pp->b; pp++; } p->out[2] = n;
    while (t != te) { if (*t == (p->in[0] & 7)) break; n += *t++; } p->out[3] = n; for (const u32 *b = table, *const be = table + 6; b < be; b += 2) n += *b; p->out[4] = n; q = text; while (q < end && *q && *q != ' ') q++; p->out[5] = q - text;
    for (struct pair *x = pairs, *xe = x + (sizeof(pairs) / sizeof(pairs[0])); x < xe; ++x) x->a += p->in[1]; p->out[6] = pairs[4].a; char *back = end; n = 0; while (back > text) { back--; n = n * 3 + *back; } p->out[7] = n;
    q = text; do { n += *q; } while (++q < end); p->out[8] = n; q = end - 4; n = 0; for (; q < end; q++) n++; p->out[9] = n; p->out[10] = q == end;
    p->out[11] = hash((u8 *)text, p->in[2]); for (int i = 0; i < 2; i++) n += words(text, end); p->out[12] = n; p->out[13] = hash((u8 *)table, 12);
    return n;
}
