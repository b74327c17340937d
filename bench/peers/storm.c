/* The storm: one thread, FILES x (create, write 64 bytes, close, rename, unlink) over DIRS directories, then a file END.
 *
 * usage: storm DIR DIRS FILES     the directories d0 .. are there already; prints the seconds it took
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	if (argc != 4 || chdir(argv[1]))
		return 2;
	int dirs = atoi(argv[2]), files = atoi(argv[3]);
	char from[64], to[64], data[64] = "sixty-four bytes of nothing in particular, again and again";
	struct timespec began, ended;
	clock_gettime(CLOCK_MONOTONIC, &began);
	for (int i = 0; i < files; i++) {
		snprintf(from, sizeof from, "d%d/file%d", i % dirs, i);
		snprintf(to, sizeof to, "d%d/renamed%d", i % dirs, i);
		int fd = open(from, O_CREAT | O_WRONLY | O_TRUNC, 0600);
		if (fd < 0 || write(fd, data, sizeof data) != sizeof data || close(fd) || rename(from, to) || unlink(to))
			return 1;
	}
	clock_gettime(CLOCK_MONOTONIC, &ended);
	int fd = open("END", O_CREAT | O_WRONLY, 0600);
	if (fd < 0 || write(fd, data, 1) != 1 || close(fd))
		return 1;
	printf("%.6f\n", ended.tv_sec - began.tv_sec + (ended.tv_nsec - began.tv_nsec) / 1e9);
	return 0;
}
