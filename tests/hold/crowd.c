/* A crowd of openers: every thread opens its own file for writing again and again and notes how long it waited.
 *
 * usage: crowd DIR THREADS SECONDS PAUSE_MS WRITE     prints: opens, refused, failed, longest wait in µs, median in µs
 *
 * The threads run at a fixed priority where they may, so that what is measured is the wait and not their own place in
 * the queue for a processor. All begin at once; "ready" is printed before that. WRITE 1: a byte is written, too.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

static pthread_barrier_t all;
static const char *directory;
static double seconds;
static long pause_ms;
static int writing;

struct one {
    pthread_t thread;
    int number;
    long opens, refused, failed;
    long long longest, first;
};

static long long now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void *run(void *given)
{
    struct one *one = given;
    char path[4096];
    snprintf(path, sizeof path, "%s/f%d", directory, one->number);
    pthread_barrier_wait(&all);
    long long end = now() + (long long)(seconds * 1e9);
    while (now() < end) {
        long long began = now();
        int fd = open(path, O_RDWR | O_CLOEXEC);
        long long took = now() - began;
        if (took > one->longest)
            one->longest = took;
        if (!one->first)
            one->first = took;
        one->opens++;
        if (fd < 0) {
            if (errno == EPERM)
                one->refused++;
            else
                one->failed++;
        } else {
            if (writing && pwrite(fd, "x", 1, 0) < 0 && errno != ENOSPC)
                one->failed++;
            close(fd);
        }
        struct timespec pause = {pause_ms / 1000, pause_ms % 1000 * 1000000};
        nanosleep(&pause, NULL);
    }
    return NULL;
}

static int order(const void *a, const void *b)
{
    long long x = ((const struct one *)a)->first, y = ((const struct one *)b)->first;
    return x < y ? -1 : x > y;
}

int main(int argc, char **argv)
{
    if (argc != 6)
        return 2;
    directory = argv[1];
    int threads = atoi(argv[2]);
    seconds = atof(argv[3]);
    pause_ms = atol(argv[4]);
    writing = atoi(argv[5]);
    struct rlimit files = {0, 0};
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    struct one *ones = calloc(threads, sizeof *ones);
    pthread_attr_t small;
    pthread_attr_init(&small);
    pthread_attr_setstacksize(&small, 64 << 10);
    pthread_barrier_init(&all, NULL, threads + 1);
    for (int i = 0; i < threads; i++) {
        ones[i].number = i;
        if (pthread_create(&ones[i].thread, &small, run, &ones[i])) {
            fprintf(stderr, "thread %d cannot be started\n", i);
            return 3;
        }
        struct sched_param five = {.sched_priority = 5};
        pthread_setschedparam(ones[i].thread, SCHED_FIFO, &five);
    }
    printf("ready\n");
    fflush(stdout);
    pthread_barrier_wait(&all);
    long opens = 0, refused = 0, failed = 0;
    long long longest = 0;
    for (int i = 0; i < threads; i++) {
        pthread_join(ones[i].thread, NULL);
        opens += ones[i].opens;
        refused += ones[i].refused;
        failed += ones[i].failed;
        if (ones[i].longest > longest)
            longest = ones[i].longest;
    }
    qsort(ones, threads, sizeof *ones, order);
    printf("%ld %ld %ld %lld %lld\n", opens, refused, failed, longest / 1000, ones[threads / 2].first / 1000);
    return 0;
}
