/* Global and static variables keep their values between calls of a function. */
static int counter;
static int start = 5;
static const int table[4] = { 2, 3, 5, 7 };
static struct { int a; char name[8]; u32 low : 4, high : 4; } state = { 3, "state", 1, 2 };
static long grid[2][3] = { { 1 }, { [2] = 9 } };
static int next(void) { static int last = 10; counter++; return last++; }
long test(long *io)
{
    int i = 8;
    counter = 0;
    start = 5;
    state.a = 3;
    state.low = 1;
    int first = next();
    io[i++] = next() - first;
    io[i++] = counter + start;
    io[i++] = table[io[0] & 3];
    start += io[1];
    io[i++] = start;
    state.a *= 2;
    state.low += 5;
    io[i++] = state.a + state.name[1] + state.low + state.high;
    io[i++] = grid[1][2] + grid[0][0] + grid[io[0] & 1][2];
    int *p = &counter;
    *p += 100;
    io[i++] = counter;
    for (int j = 0; j < 4; j++)
        io[i] += table[j];
    i++;
    return i;
}
