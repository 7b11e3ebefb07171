/* Pointers and arrays: arithmetic, comparison, pointers to pointers, strings, memory builtins. */
static int length(const char *s, int limit) { int n = 0; while (n < limit && s[n]) n++; return n; }
static void swap(int *a, int *b) { int t = *a; *a = *b; *b = t; }
static int *larger(int *a, int *b) { return *a > *b ? a : b; }
static long pick(long *table, int n) { return *(table + (n & 3)); }
long test(long *io)
{
    int i = 8;
    int a[5] = { 1, 2, 3 }, *p = a, *q = &a[4];
    io[i++] = q - p;
    io[i++] = *++p + *p++ + p[0];
    *q = io[0];
    io[i++] = a[4] + *(q - 2);
    io[i++] = p < q;
    io[i++] = p == &a[2];
    io[i++] = &a[0] != q;
    swap(&a[0], &a[1]);
    io[i++] = a[0] * 10 + a[1];
    *larger(&a[2], &a[4]) = 55;
    io[i++] = a[2] + a[4];
    char text[16] = "hello", other[] = { 'x', 'y', 0 };
    io[i++] = length(text, 16) + length(other, 3) + sizeof(other);
    text[io[1] & 3] = '!';
    io[i++] = text[0] + text[1] + text[2] + text[3];
    __builtin_memcpy(text + 8, text, 8);
    io[i++] = text[8] + text[12];
    __builtin_memset(text, 'z', 3);
    io[i++] = text[2] + text[3];
    __builtin_memset(text, 0, sizeof(text));
    io[i++] = text[9];
    io[i++] = __builtin_memcmp("abcd", "abce", 4) < 0;
    io[i++] = __builtin_memcmp("abcd", "abce", 3);
    long table[4] = { io[0], io[1], io[2], io[3] };
    io[i++] = pick(table, io[0]) + 2[table];
    void *v = table;
    io[i++] = *(long *)(v + 8) == io[1];
    io[i++] = ((u8 *)table)[3] + ((u16 *)table)[1];
    io[i++] = (long)(&table[3]) - (long)table;
    long *pl = io;
    pl += 2;
    io[i++] = *pl - pl[1];
    const char *names = "one";
    io[i++] = names[1] + "two"[2] + *names;
    int **pp = &p;
    p = a;
    io[i++] = p[2];
    struct { int *at; int n; } view = { a, 5 };
    io[i++] = view.n + (view.at == a);
    io[i++] = __builtin_offsetof(struct { char c; long d[3]; }, d[2]);
    p = 0;
    io[i++] = !p + (p == 0);
    return i;
}
