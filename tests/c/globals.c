// Global and static variables keep their values from run to run; constants do not change; initial values of all kinds.
static u64 runs; static s32 last = -7; static u8 small[5] = { 1, 2, [4] = 9 }; static struct { u16 a; s8 b; } state = { 300, -3 };
static const struct { u32 key; const char name[4]; } list[] = { { 7, "abc" }, { 1u << 31, "x" }, { .name = { 'q' } } };
static volatile u32 shaky = 5; static enum { IDLE, BUSY = 40000 } mode = BUSY; static _Bool flag = 5; static const u64 wide = 0x123456789abcdef0;
static u32 ticket(void) { static u32 next = 4000000000u; static s8 step = 100; return next += step++; }
static u64 run(struct io *p)
{
    p->out[0] = ++runs; p->out[1] = last; last = last * 3 + (s32)p->in[0]; p->out[2] = last; p->out[3] = ++small[p->in[1] & 3]; p->out[4] = small[4]; p->out[5] = state.a += 7; p->out[6] = state.b--;
    u32 i = p->in[2] & 1; p->out[7] = list[i].key; p->out[8] = list[i].name[p->in[3] & 3]; shaky += 1; p->out[9] = shaky; p->out[10] = mode; mode = p->in[4] & 1 ? IDLE : BUSY; p->out[11] = flag; flag ^= 1;
    p->out[12] = wide; p->out[13] = ticket(); p->out[14] = ticket(); p->out[15] = sizeof(list); p->out[16] = (u32)wide; p->out[17] = *(u8 *)&wide;
    return runs + last;
}
