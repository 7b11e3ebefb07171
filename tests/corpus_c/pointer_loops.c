/* Loops that end where a pointer reaches an address: up, down, by steps, over parts of arrays, left early; on the stack and in global data. */
static int table[8] = { 3, 1, 4, 1, 5, 9, 2, 6 };
struct cell { u16 low; u32 high; };
long test(long *io)
{
    int i = 8, b[8], *p, s = 0;
    struct cell cells[4];
    for (p = b; p < b + 8; p++)
        *p = io[0] + (p - b);
    for (int *q = b; q != &b[8]; ++q)
        s += *q;
    io[i++] = s;
    io[i++] = p - b;
    s = 0;
    for (int *q = table; q < table + 8; q += 3)
        s = s * 10 + *q;
    io[i++] = s;
    s = 0;
    for (p = &table[7]; p >= table + 2; p--)
        s = s * 10 + *p;
    io[i++] = s;
    io[i++] = p - table;
    for (struct cell *c = cells; c <= &cells[3]; c++) {
        if (c == cells + 2) {
            c->low = 7;
            c->high = 8;
            continue;
        }
        c->low = io[1];
        c->high = c - cells;
    }
    io[i++] = cells[0].low + cells[1].high + cells[2].low * 100 + cells[3].high;
    for (p = table; p < table + 8; p++)
        if (*p == 5)
            break;
    io[i++] = p - table;
    s = 0;
    for (char *c = (char *)b; c < (char *)(b + 2); c++)
        s += *c;
    io[i++] = s;
    for (p = table + 1; p > table + 6; p++)
        s++;
    return s + (p - table);
}
