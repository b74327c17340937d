/* The bare C reader that the fanotify source is measured against: one mark, records parsed and counted, no paths.
 *
 * usage: fanreader DIR     DIR lies on a file system of its own; prints "ready", then, once a file called END was
 *                          written, one line of JSON
 *
 * It asks for what shieldd asks for; MODERATE=1 naps 1 ms after a recent read, as shieldd does. An event counts once for
 * each operation in it, since the kernel merges them.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/fanotify.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#ifndef FAN_RENAME
#define FAN_RENAME 0x10000000
#endif
#ifndef FAN_REPORT_DFID_NAME_TARGET
#define FAN_REPORT_DFID_NAME_TARGET (0x400 | 0x800 | 0x200 | 0x1000)
#endif
#define MASK (FAN_CREATE | FAN_DELETE | FAN_RENAME | FAN_MODIFY | FAN_CLOSE_WRITE | FAN_ATTRIB)

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
	static char buffer[256 * 1024] __attribute__((aligned(8)));
	struct stat here, root;
	if (argc != 2 || stat(argv[1], &here) || stat("/", &root) || here.st_dev == root.st_dev)
		return 2; /* never the root's file system */
	int group = fanotify_init(FAN_CLASS_NOTIF | FAN_CLOEXEC | FAN_REPORT_DFID_NAME_TARGET | FAN_UNLIMITED_QUEUE, O_RDONLY);
	if (group < 0 || fanotify_mark(group, FAN_MARK_ADD | FAN_MARK_FILESYSTEM, MASK | FAN_ONDIR, AT_FDCWD, argv[1]))
		return 2;
	int moderate = getenv("MODERATE") != NULL;
	puts("ready");
	fflush(stdout);
	long events = 0, records = 0, lost = 0;
	double before = cpu(), last = 0;
	for (int done = 0; !done;) {
		if (moderate && now() - last < 0.005)
			usleep(1000);
		ssize_t length = read(group, buffer, sizeof buffer);
		last = now();
		if (length < 0 && errno == EINTR)
			continue;
		if (length <= 0)
			return 1;
		for (struct fanotify_event_metadata *event = (void *)buffer; FAN_EVENT_OK(event, length);
		     event = FAN_EVENT_NEXT(event, length)) {
			records++;
			events += __builtin_popcountll(event->mask & MASK);
			lost += (event->mask & FAN_Q_OVERFLOW) != 0;
			char *end = (char *)event + event->event_len;
			for (char *at = (char *)event + event->metadata_len; at + sizeof(struct fanotify_event_info_header) <= end;) {
				struct fanotify_event_info_fid *info = (void *)at;
				at += info->hdr.len;
				if (info->hdr.info_type != FAN_EVENT_INFO_TYPE_DFID_NAME || !(event->mask & FAN_CLOSE_WRITE))
					continue;
				struct file_handle *handle = (void *)info->handle;
				if (!strcmp((char *)handle->f_handle + handle->handle_bytes, "END"))
					done = 1;
			}
		}
	}
	printf("{\"events\": %ld, \"records\": %ld, \"lost\": %ld, \"cpu_s\": %.6f}\n", events, records, lost, cpu() - before);
	return 0;
}
