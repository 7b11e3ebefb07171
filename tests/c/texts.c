// Global pointers to texts: alone, in arrays, in structs; by constant and by variable index; NULL among them.
struct entry { int number; const char *name; u8 flag; const char *more[2]; };
static const char *const alone = "alone";
const char *plain = "plain text";
static const char *names[] = { "zero", "one", "two", "three", "", "five", "six", "seven" };
static const struct entry entries[4] = { { 1, "first", 2, { "a", 0 } }, { .name = "second", .more = { 0, "bc" } }, { 3 }, { 4, "first" } };
static int size(const char *text) { int i = 0; for (; i < 16; i++) if (!text[i]) break; return i; }
static u64 sum(const struct entry *e) { return e->number * 100 + e->flag * 10 + (e->name ? size(e->name) : 99); }
static u64 run(struct io *p)
{
    u32 i = p->in[0] & 7, j = p->in[1] & 3; const struct entry *e = &entries[p->in[2] & 3]; const char *chosen = p->in[3] & 1 ? names[2] : plain;
    p->out[0] = alone[1] + plain[3]; p->out[1] = names[3][4]; p->out[2] = size(names[i]); p->out[3] = names[i][0]; p->out[4] = entries[j].number; p->out[5] = entries[j].name != 0;
    p->out[6] = entries[j].name ? entries[j].name[1] : 7; p->out[7] = sum(e); p->out[8] = sum(&entries[1]); p->out[9] = chosen[0]; p->out[10] = size(chosen); p->out[11] = entries[j].more[p->in[4] & 1] ? 1 : 2;
    p->out[12] = sizeof(names) / sizeof(names[0]); p->out[13] = !entries[2].name; p->out[14] = e->more[1] ? e->more[1][1] : 0; p->out[15] = *names[i & 3] + *plain;
    for (int n = 0; n < 8; n++) p->out[16 + n] = names[n][0] * 256 + size(names[n]);
    return size(alone);
}
