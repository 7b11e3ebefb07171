/* A bounded load: N calls of getppid, in a process whose comm and pid the benchmark knows; one each PACE ns when given. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static long now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t); /* no system call: the vDSO answers */
	return t.tv_sec * 1000000000L + t.tv_nsec;
}

int main(int argc, char **argv)
{
	long n = argc > 1 ? atol(argv[1]) : 1000000;
	double pace = argc > 2 ? atof(argv[2]) : 0;
	char go;
	long start;

	if (read(0, &go, 1) != 1)
		return 1;
	start = now_ns();
	for (long i = 0; i < n; i++) {
		if (pace)
			while (now_ns() - start < i * pace)
				;
		syscall(SYS_getppid);
	}
	printf("%.1f\n", (double)(now_ns() - start) / n);
	return 0;
}
