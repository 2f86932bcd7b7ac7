/*
 * A disk that fails on command, preloaded into the process of a test.
 *
 * DISK_SYNCS=n: from the n-th on, every sync fails. DISK_SYNC=n: the n-th does, and no other.
 * DISK_DIR=path, DISK_BYTES=n: the files in path hold n bytes together at most; a write that would
 * make one of them grow beyond that fails as on a full disk.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void *real(const char *name) { return dlsym(RTLD_NEXT, name); }

static int sync_as(const char *name, int fd) {
    static atomic_long syncs;
    const char *first = getenv("DISK_SYNCS");
    const char *only = getenv("DISK_SYNC");
    long number = atomic_fetch_add(&syncs, 1) + 1;
    if ((first != NULL && number >= atol(first)) || (only != NULL && number == atol(only))) {
        errno = EIO;
        return -1;
    }
    int (*next)(int);
    *(void **)&next = real(name);
    return next(fd);
}

int fsync(int fd) { return sync_as("fsync", fd); }

int fdatasync(int fd) { return sync_as("fdatasync", fd); }

static long long held_in(const char *path) {
    DIR *dir = opendir(path);
    long long sum = 0;
    if (dir == NULL) {
        return 0;
    }
    for (struct dirent *entry = readdir(dir); entry != NULL; entry = readdir(dir)) {
        struct stat about;
        if (fstatat(dirfd(dir), entry->d_name, &about, 0) == 0 && S_ISREG(about.st_mode)) {
            sum += about.st_size;
        }
    }
    closedir(dir);
    return sum;
}

static int is_full(int fd, off_t end) {
    const char *dir = getenv("DISK_DIR");
    const char *bytes = getenv("DISK_BYTES");
    struct stat about;
    char link[64], path[4096];
    if (dir == NULL || bytes == NULL || fstat(fd, &about) != 0 || !S_ISREG(about.st_mode) ||
        end <= about.st_size) {
        return 0;
    }
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) {
        return 0;
    }
    path[length] = '\0';
    if (strncmp(path, dir, strlen(dir)) != 0 ||
        held_in(dir) + (end - about.st_size) <= atoll(bytes)) {
        return 0;
    }
    errno = ENOSPC;
    return 1;
}

ssize_t write(int fd, const void *from, size_t count) {
    ssize_t (*next)(int, const void *, size_t);
    off_t at = lseek(fd, 0, SEEK_CUR);
    if (at >= 0 && is_full(fd, at + (off_t)count)) {
        return -1;
    }
    *(void **)&next = real("write");
    return next(fd, from, count);
}

ssize_t pwrite(int fd, const void *from, size_t count, off_t at) {
    ssize_t (*next)(int, const void *, size_t, off_t);
    if (is_full(fd, at + (off_t)count)) {
        return -1;
    }
    *(void **)&next = real("pwrite");
    return next(fd, from, count, at);
}

ssize_t pwrite64(int fd, const void *from, size_t count, off64_t at) {
    ssize_t (*next)(int, const void *, size_t, off64_t);
    if (is_full(fd, at + (off_t)count)) {
        return -1;
    }
    *(void **)&next = real("pwrite64");
    return next(fd, from, count, at);
}
