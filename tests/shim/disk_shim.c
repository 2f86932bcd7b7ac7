/*
 * A disk that fails on command, preloaded into the process of a test.
 *
 * DISK_SYNCS=n: from the n-th on, every sync fails. DISK_SYNC=n: the n-th does, and no other.
 * DISK_FILE=path, DISK_BROKEN=path: each sync of the file fails while the other one is there.
 * DISK_SHADOW=path: what a file held when it was last synced is beside it in path, under its name.
 * DISK_DIR=path, DISK_BYTES=n: the files in path hold n bytes together at most; a write that would
 * make one of them grow beyond that fails as on a full disk.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void *real(const char *name) { return dlsym(RTLD_NEXT, name); }

static int is_at(int fd, char *path, size_t room) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, room - 1);
    if (length < 0) {
        return 0;
    }
    path[length] = '\0';
    return 1;
}

static int is_broken(int fd) {
    const char *file = getenv("DISK_FILE");
    const char *broken = getenv("DISK_BROKEN");
    char path[4096];
    return file != NULL && broken != NULL && access(broken, F_OK) == 0 &&
           is_at(fd, path, sizeof path) && strcmp(path, file) == 0;
}

/* Copies what a file holds; by its own descriptor, because closing another one would end SQLite's locks. */
static int copy(int fd, const char *to) {
    char bytes[65536];
    ssize_t (*read_at)(int, void *, size_t, off_t);
    ssize_t (*put)(int, const void *, size_t);
    *(void **)&read_at = real("pread");
    *(void **)&put = real("write");
    int out = open(to, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    off_t at = 0;
    ssize_t count = 0;
    while (out >= 0 && (count = read_at(fd, bytes, sizeof bytes, at)) > 0) {
        if (put(out, bytes, (size_t)count) != count) {
            count = -1;
            break;
        }
        at += count;
    }
    return out >= 0 && close(out) == 0 && count == 0;
}

static int sync_as(const char *name, int fd) {
    static atomic_long syncs;
    static pthread_mutex_t one = PTHREAD_MUTEX_INITIALIZER;
    const char *first = getenv("DISK_SYNCS");
    const char *only = getenv("DISK_SYNC");
    const char *shadow = getenv("DISK_SHADOW");
    char path[4096], new[8300], kept[8300];
    long number = atomic_fetch_add(&syncs, 1) + 1;
    if ((first != NULL && number >= atol(first)) || (only != NULL && number == atol(only)) ||
        is_broken(fd)) {
        errno = EIO;
        return -1;
    }
    int copied = 0, shadowed = shadow != NULL && is_at(fd, path, sizeof path) && path[0] == '/';
    if (shadowed) {
        pthread_mutex_lock(&one);
        snprintf(new, sizeof new, "%s/%ld", shadow, number);
        snprintf(kept, sizeof kept, "%s%s", shadow, strrchr(path, '/'));
        /* Before the sync: what is written while it lasts may not be in it. */
        copied = copy(fd, new);
    }
    int (*next)(int);
    *(void **)&next = real(name);
    int done = next(fd);
    if (shadowed) {
        if (copied && done == 0 && rename(new, kept) != 0) {
            abort();
        }
        pthread_mutex_unlock(&one);
    }
    return done;
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
    char path[4096];
    if (dir == NULL || bytes == NULL || fstat(fd, &about) != 0 || !S_ISREG(about.st_mode) ||
        end <= about.st_size) {
        return 0;
    }
    if (!is_at(fd, path, sizeof path) || strncmp(path, dir, strlen(dir)) != 0 ||
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
