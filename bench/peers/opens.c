/* Opens files again and again and says how long each open(2) took.
 * usage: opens r|w COUNT FILE...      prints median, mean and 99th percentile in ns
 * "w" also writes a byte after each open, so that the file has changed and the next open finds a new state of it. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static long long now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static int order(const void *a, const void *b) {
    long long x = *(const long long *)a, y = *(const long long *)b;
    return x < y ? -1 : x > y;
}

int main(int argc, char **argv) {
    if (argc < 4) return 2;
    int writing = argv[1][0] == 'w', files = argc - 3;
    long count = atol(argv[2]);
    long long *took = calloc(count, sizeof *took), sum = 0;
    for (long i = 0; i < count; i++) {
        const char *path = argv[3 + i % files];
        long long began = now();
        int fd = open(path, (writing ? O_RDWR : O_RDONLY) | O_CLOEXEC);
        took[i] = now() - began;
        if (fd < 0) { perror(path); return 1; }
        if (writing && pwrite(fd, "x", 1, i % 4096) != 1) { perror(path); return 1; }
        close(fd);
    }
    qsort(took, count, sizeof *took, order);
    for (long i = 0; i < count; i++) sum += took[i];
    printf("%lld %lld %lld\n", took[count / 2], sum / count, took[count * 99 / 100]);
    return 0;
}
