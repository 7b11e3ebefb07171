// Strings and characters: escapes, joining, sizes, comparison byte by byte, copies.
static const char greeting[] = "hi" " \x41\102\n\0tail";
static int same(const char *a, const char *b) { for (int i = 0; i < 8; i++) { if (a[i] != b[i]) return 0; if (!a[i]) break; } return 1; }
static u64 run(struct io *p)
{
    char buf[8] = "abc", copy[8] = { 0 }; u64 v = p->in[0];
    p->out[0] = sizeof(greeting); p->out[1] = greeting[p->in[1] & 7]; p->out[2] = 'a' + '\n' + '\\' + '\'' + '\0' + '\x7f' + '\377'; p->out[3] = sizeof("abc" "de"); p->out[4] = "xyz"[p->in[2] & 1];
    for (int i = 0; i < 7 && buf[i]; i++) copy[i] = buf[i] - 32; p->out[5] = copy[0] + copy[1] * 256 + copy[2] * 65536; p->out[6] = same(buf, "abc"); p->out[7] = same(buf, copy); p->out[8] = same("a", "ab"); p->out[9] = 'ab';
    for (int i = 7; i >= 0; i--) { u8 d = v & 15; buf[i] = d < 10 ? '0' + d : 'a' + d - 10; v >>= 4; } __builtin_memcpy(&p->out[10], buf, 8); p->out[11] = '\xe9' < 0; p->out[12] = *"q"; p->out[13] = (u8)"\xff"[0]; p->out[14] = sizeof 'a';
    return buf[0] + buf[7];
}
