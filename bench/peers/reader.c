/* The bare C reader that the watcher is measured against: inotify, watch then list, no paths, no coalescing.
 *
 * usage: reader DIR     prints "ready", then, once a file called END appears, one line of JSON
 *
 * It watches for what shieldd watches for and counts; MODERATE=1 naps 1 ms after a recent read, as shieldd does.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#define MASK (IN_CREATE | IN_MODIFY | IN_CLOSE_WRITE | IN_ATTRIB | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO | IN_ONLYDIR)
#define MOST (1 << 20)

static int queue;
static char *paths[MOST];
static long events, overflows, found;

static void follow(const char *path)
{
	int wd = inotify_add_watch(queue, path, MASK);
	if (wd < 0 || wd >= MOST)
		return;
	free(paths[wd]);
	paths[wd] = strdup(path);
	DIR *dir = opendir(path);
	if (!dir)
		return;
	struct dirent *entry;
	char below[PATH_MAX];
	while ((entry = readdir(dir))) {
		if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
			continue;
		snprintf(below, sizeof below, "%s/%s", path, entry->d_name);
		if (entry->d_type == DT_DIR)
			follow(below);
		else
			found++;
	}
	closedir(dir);
}

static double cpu(void)
{
	struct rusage use;
	getrusage(RUSAGE_SELF, &use);
	return use.ru_utime.tv_sec + use.ru_stime.tv_sec + (use.ru_utime.tv_usec + use.ru_stime.tv_usec) / 1e6;
}

static double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

int main(int argc, char **argv)
{
	static char buffer[128 * 1024] __attribute__((aligned(8)));
	if (argc != 2 || (queue = inotify_init1(IN_CLOEXEC)) < 0)
		return 2;
	int moderate = getenv("MODERATE") != NULL;
	follow(argv[1]);
	puts("ready");
	fflush(stdout);
	double before = cpu(), last = 0;
	for (int done = 0; !done;) {
		if (moderate && now() - last < 0.005)
			usleep(1000);
		ssize_t length = read(queue, buffer, sizeof buffer);
		last = now();
		if (length < 0 && errno == EINTR)
			continue;
		if (length <= 0)
			return 1;
		for (char *at = buffer; at < buffer + length;) {
			struct inotify_event *event = (struct inotify_event *)at;
			at += sizeof *event + event->len;
			events++;
			if (event->mask & IN_Q_OVERFLOW)
				overflows++;
			else if (event->mask & IN_ISDIR && event->mask & (IN_CREATE | IN_MOVED_TO) && paths[event->wd]) {
				char below[PATH_MAX];
				snprintf(below, sizeof below, "%s/%s", paths[event->wd], event->name);
				follow(below);
			} else if (event->len && event->mask & IN_CLOSE_WRITE && !strcmp(event->name, "END"))
				done = 1;
		}
	}
	printf("{\"events\": %ld, \"lost\": %ld, \"cpu_s\": %.6f}\n", events, overflows, cpu() - before);
	return 0;
}
