/* Comes before the C library in a daemon and sees every change it makes below one folder: Python's, NumPy's, SQLite's.
 *
 * CHAOS_ROOT     the folder; everything else passes untouched
 * CHAOS_JOURNAL  file that every change is recorded in once it is made; `journal.py` reads it
 * CHAOS_DIE      K:P:E   SIGKILL at the K-th change of a path that ends in E: before it at P = 0, after it at P = 1000,
 *                        in between a write stops after P thousandths of its bytes
 * CHAOS_ERROR    E:C:K:S error number E instead of calls of the classes C (o open, w write, s sync, n names), from the
 *                        K-th change on, for S seconds or, below 0, for good
 * CHAOS_FORGET   ENDING  syncs of paths that end so return at once with nothing done: a program that forgets them
 *
 * One change at a time, so the journal's order is the order of things.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))
#define LOCKED __attribute__((cleanup(leave), unused)) int entered = enter()

struct record {
    char kind, padding[3];
    uint32_t number, path, other; /* of the change, then bytes of the path and of what follows it: data or second path */
    uint64_t inode;
    int64_t offset;
};

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static char root[PATH_MAX];
static size_t root_length;
static int journal = -1;
static uint32_t number;
static uint32_t die_at, die_permille, matched;
static char die_ending[64];
static int struck;
static int error_number;
static char error_classes[8], forgotten[64];
static uint32_t error_from;
static double error_seconds, error_began = -1;

__attribute__((constructor)) static void begin(void) {
    const char *value = getenv("CHAOS_ROOT");
    if (!value) return;
    root_length = strlen(strncpy(root, value, sizeof root - 1));
    if ((value = getenv("CHAOS_JOURNAL"))) {
        int opened = syscall(SYS_openat, AT_FDCWD, value, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
        journal = fcntl(opened, F_DUPFD_CLOEXEC, 500);
        syscall(SYS_close, opened);
    }
    if ((value = getenv("CHAOS_DIE"))) sscanf(value, "%u:%u:%63s", &die_at, &die_permille, die_ending);
    if ((value = getenv("CHAOS_ERROR")))
        sscanf(value, "%d:%7[owsn]:%u:%lf", &error_number, error_classes, &error_from, &error_seconds);
    if ((value = getenv("CHAOS_FORGET"))) strncpy(forgotten, value, sizeof forgotten - 1);
}

static int enter(void) { return pthread_mutex_lock(&mutex); }
static void leave(int *entered) {
    int kept = errno;
    (void)entered;
    pthread_mutex_unlock(&mutex);
    errno = kept;
}

/* Path relative to the root, NULL when outside. */
static const char *below(const char *path) {
    if (!root_length || strncmp(path, root, root_length) || (path[root_length] && path[root_length] != '/')) return NULL;
    return path[root_length] ? path + root_length + 1 : "";
}

static const char *named(int folder, const char *path, char *full) {
    if (!root_length || !path) return NULL;
    if (path[0] == '/') return below(path);
    if (folder == AT_FDCWD) {
        if (syscall(SYS_getcwd, full, PATH_MAX) < 0) return NULL;
    } else {
        char link[64];
        snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
        ssize_t length = readlink(link, full, PATH_MAX - 1);
        if (length < 0) return NULL;
        full[length] = 0;
    }
    size_t length = strlen(full);
    snprintf(full + length, PATH_MAX - length, "/%s", path);
    return below(full);
}

static const char *opened_as(int descriptor, char *full) {
    if (!root_length || descriptor == journal) return NULL;
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, full, PATH_MAX - 1);
    if (length < 0) return NULL;
    full[length] = 0;
    return below(full);
}

static void record(char kind, const char *path, uint64_t inode, int64_t offset, const void *other, size_t length) {
    if (journal < 0) return;
    struct record head = {kind, {0}, number, strlen(path), length, inode, offset};
    struct iovec parts[] = {{&head, sizeof head}, {(void *)path, head.path}, {(void *)other, length}};
    if (syscall(SYS_writev, journal, parts, 3) != (long)(sizeof head + head.path + length)) abort();
}

static void die(void) {
    kill(getpid(), SIGKILL);
    for (;;) pause();
}

static uint64_t inode_of(int descriptor) {
    struct stat found;
    return fstat(descriptor, &found) ? 0 : found.st_ino;
}

/* Whether the call has to fail; errno says how. */
static int fails(char class) {
    if (!error_number || number < error_from || !strchr(error_classes, class)) return 0;
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    double now = time.tv_sec + time.tv_nsec * 1e-9;
    if (error_began < 0) error_began = now;
    if (error_seconds >= 0 && now - error_began > error_seconds) return 0;
    errno = error_number;
    return 1;
}

static int ends_in(const char *path, const char *ending) {
    size_t length = strlen(path), wanted = strlen(ending);
    return length >= wanted && !strcmp(path + length - wanted, ending);
}

static int forgets(const char *path) { return forgotten[0] && ends_in(path, forgotten); }

/* Count a change; whether the process dies before all of it is made. */
static int last_before(const char *path) {
    number++;
    struck = die_at && ends_in(path, die_ending) && ++matched == die_at;
    return struck && die_permille < 1000;
}
static void done(void) {
    if (struck) die();
}

static long write_at(int descriptor, const char *path, const char *data, size_t length, off_t offset, int positioned) {
    off_t at = offset;
    if (!positioned) {
        int flags = fcntl(descriptor, F_GETFL);
        at = lseek(descriptor, 0, flags & O_APPEND ? SEEK_END : SEEK_CUR);
    }
    int last = last_before(path);
    size_t wanted = last ? length * die_permille / 1000 : length;
    int first = error_began < 0;
    if (fails('w')) {
        /* A disk that gets full takes what it has room for. */
        if (errno != ENOSPC || length < 2 || !first) return -1;
        wanted = length / 2;
    }
    long written = 0;
    if (wanted)
        written = positioned ? syscall(SYS_pwrite64, descriptor, data, wanted, offset)
                             : syscall(SYS_write, descriptor, data, wanted);
    if (written > 0) record('W', path, inode_of(descriptor), at, data, written);
    if (last) die();
    done();
    return written;
}

static long write_any(int descriptor, const void *data, size_t length, off_t offset, int positioned) {
    char full[PATH_MAX];
    const char *path = opened_as(descriptor, full);
    if (path) {
        LOCKED;
        return write_at(descriptor, path, data, length, offset, positioned);
    }
    return positioned ? syscall(SYS_pwrite64, descriptor, data, length, offset)
                      : syscall(SYS_write, descriptor, data, length);
}

EXPORT ssize_t write(int descriptor, const void *data, size_t length) {
    return write_any(descriptor, data, length, 0, 0);
}
EXPORT ssize_t pwrite(int descriptor, const void *data, size_t length, off_t offset) {
    return write_any(descriptor, data, length, offset, 1);
}
EXPORT ssize_t pwrite64(int descriptor, const void *data, size_t length, off64_t offset) {
    return write_any(descriptor, data, length, offset, 1);
}

static ssize_t write_parts(int descriptor, const struct iovec *parts, int count, off_t offset, int positioned) {
    char full[PATH_MAX];
    if (!opened_as(descriptor, full))
        return positioned ? syscall(SYS_pwritev, descriptor, parts, count, offset, 0)
                          : syscall(SYS_writev, descriptor, parts, count);
    ssize_t total = 0;
    for (int part = 0; part < count; part++) {
        long written = write_any(descriptor, parts[part].iov_base, parts[part].iov_len, offset + total, positioned);
        if (written < 0) return total ? total : -1;
        total += written;
        if ((size_t)written < parts[part].iov_len) break;
    }
    return total;
}

EXPORT ssize_t writev(int descriptor, const struct iovec *parts, int count) {
    return write_parts(descriptor, parts, count, 0, 0);
}
EXPORT ssize_t pwritev(int descriptor, const struct iovec *parts, int count, off_t offset) {
    return write_parts(descriptor, parts, count, offset, 1);
}
EXPORT ssize_t pwritev64(int descriptor, const struct iovec *parts, int count, off64_t offset) {
    return write_parts(descriptor, parts, count, offset, 1);
}

/* NumPy writes arrays with it; inside the C library its writes would not be seen. */
EXPORT size_t fwrite(const void *data, size_t size, size_t count, FILE *stream) {
    static size_t (*original)(const void *, size_t, size_t, FILE *);
    if (!original) original = dlsym(RTLD_NEXT, "fwrite");
    char full[PATH_MAX];
    int descriptor = fileno(stream);
    if (descriptor < 0 || !opened_as(descriptor, full)) return original(data, size, count, stream);
    if (fflush(stream)) return 0;
    size_t total = 0;
    while (total < size * count) {
        long written = write_any(descriptor, (const char *)data + total, size * count - total, 0, 0);
        if (written <= 0) break;
        total += written;
    }
    int kept = errno;
    fseeko(stream, lseek(descriptor, 0, SEEK_CUR), SEEK_SET);
    errno = kept;
    return size ? total / size : 0;
}

static int truncate_open(int descriptor, off_t size) {
    char full[PATH_MAX];
    const char *path = opened_as(descriptor, full);
    if (!path) return syscall(SYS_ftruncate, descriptor, size);
    LOCKED;
    if (last_before(path)) die();
    if (fails('w')) return -1;
    int result = syscall(SYS_ftruncate, descriptor, size);
    if (!result) record('T', path, inode_of(descriptor), size, NULL, 0);
    done();
    return result;
}
EXPORT int ftruncate(int descriptor, off_t size) { return truncate_open(descriptor, size); }
EXPORT int ftruncate64(int descriptor, off64_t size) { return truncate_open(descriptor, size); }

static int sync_open(int descriptor, long call) {
    char full[PATH_MAX];
    const char *path = opened_as(descriptor, full);
    if (!path) return syscall(call, descriptor);
    LOCKED;
    struct stat found;
    int folder = !fstat(descriptor, &found) && S_ISDIR(found.st_mode);
    if (last_before(path)) die();
    if (fails('s')) {
        int kept = errno;
        /* The system has dropped the pages it could not write, and believes them clean. */
        if (!folder) record('E', path, found.st_ino, 0, NULL, 0);
        errno = kept;
        return -1;
    }
    if (forgets(path)) return 0;
    int result = syscall(call, descriptor);
    if (!result) record(folder ? 'D' : 'S', path, found.st_ino, 0, NULL, 0);
    done();
    return result;
}
EXPORT int fsync(int descriptor) { return sync_open(descriptor, SYS_fsync); }
EXPORT int fdatasync(int descriptor) { return sync_open(descriptor, SYS_fdatasync); }

static int open_any(int folder, const char *name, int flags, mode_t mode) {
    char full[PATH_MAX];
    const char *path = named(folder, name, full);
    if (!path) return syscall(SYS_openat, folder, name, flags, mode);
    LOCKED;
    if (fails('o')) return -1;
    struct stat found;
    int there = !fstatat(folder, name, &found, 0);
    int creates = flags & O_CREAT && !there, empties = flags & O_TRUNC && there && found.st_size > 0;
    if ((creates || empties) && last_before(path)) die();
    int descriptor = syscall(SYS_openat, folder, name, flags, mode);
    if (descriptor >= 0 && creates) record('C', path, inode_of(descriptor), 0, NULL, 0);
    if (descriptor >= 0 && empties) record('T', path, inode_of(descriptor), 0, NULL, 0);
    if (creates || empties) done();
    return descriptor;
}

static mode_t mode_of(int flags, va_list rest) { return flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0; }

#define OPENING(NAME)                                     \
    EXPORT int NAME(const char *path, int flags, ...) {   \
        va_list rest;                                     \
        va_start(rest, flags);                            \
        mode_t mode = mode_of(flags, rest);               \
        va_end(rest);                                     \
        return open_any(AT_FDCWD, path, flags, mode);     \
    }
OPENING(open)
OPENING(open64)

#define OPENING_AT(NAME)                                          \
    EXPORT int NAME(int folder, const char *path, int flags, ...) { \
        va_list rest;                                             \
        va_start(rest, flags);                                    \
        mode_t mode = mode_of(flags, rest);                       \
        va_end(rest);                                             \
        return open_any(folder, path, flags, mode);               \
    }
OPENING_AT(openat)
OPENING_AT(openat64)

EXPORT int creat(const char *path, mode_t mode) { return open_any(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode); }
EXPORT int creat64(const char *path, mode_t mode) { return creat(path, mode); }

/* A change of names, carried out by CALL; the class is n. */
#define NAMES(KIND, PATH, OTHER, CALL)                                                 \
    do {                                                                               \
        LOCKED;                                                                        \
        if (last_before(PATH)) die();                                                  \
        if (fails('n')) return -1;                                                     \
        int result = CALL;                                                             \
        if (!result) record(KIND, PATH, 0, 0, OTHER, (OTHER) ? strlen(OTHER) : 0);     \
        done();                                                                        \
        return result;                                                                 \
    } while (0)

static int rename_any(int folder, const char *from, int other_folder, const char *to, unsigned flags) {
    char full[PATH_MAX], other_full[PATH_MAX];
    const char *path = named(folder, from, full), *other = named(other_folder, to, other_full);
    if (!path || !other) return syscall(SYS_renameat2, folder, from, other_folder, to, flags);
    NAMES('R', path, other, syscall(SYS_renameat2, folder, from, other_folder, to, flags));
}
EXPORT int rename(const char *from, const char *to) { return rename_any(AT_FDCWD, from, AT_FDCWD, to, 0); }
EXPORT int renameat(int folder, const char *from, int other, const char *to) {
    return rename_any(folder, from, other, to, 0);
}
EXPORT int renameat2(int folder, const char *from, int other, const char *to, unsigned flags) {
    return rename_any(folder, from, other, to, flags);
}

static int unlink_any(int folder, const char *name, int flags) {
    char full[PATH_MAX];
    const char *path = named(folder, name, full), *none = NULL;
    if (!path) return syscall(SYS_unlinkat, folder, name, flags);
    NAMES('U', path, none, syscall(SYS_unlinkat, folder, name, flags));
}
EXPORT int unlink(const char *path) { return unlink_any(AT_FDCWD, path, 0); }
EXPORT int rmdir(const char *path) { return unlink_any(AT_FDCWD, path, AT_REMOVEDIR); }
EXPORT int unlinkat(int folder, const char *path, int flags) { return unlink_any(folder, path, flags); }

static int link_any(int folder, const char *from, int other_folder, const char *to, int flags) {
    char full[PATH_MAX], other_full[PATH_MAX];
    const char *path = named(folder, from, full), *other = named(other_folder, to, other_full);
    if (!path || !other) return syscall(SYS_linkat, folder, from, other_folder, to, flags);
    NAMES('L', path, other, syscall(SYS_linkat, folder, from, other_folder, to, flags));
}
EXPORT int link(const char *from, const char *to) { return link_any(AT_FDCWD, from, AT_FDCWD, to, 0); }
EXPORT int linkat(int folder, const char *from, int other, const char *to, int flags) {
    return link_any(folder, from, other, to, flags);
}

static int mkdir_any(int folder, const char *name, mode_t mode) {
    char full[PATH_MAX];
    const char *path = named(folder, name, full), *none = NULL;
    if (!path) return syscall(SYS_mkdirat, folder, name, mode);
    NAMES('M', path, none, syscall(SYS_mkdirat, folder, name, mode));
}
EXPORT int mkdir(const char *path, mode_t mode) { return mkdir_any(AT_FDCWD, path, mode); }
EXPORT int mkdirat(int folder, const char *path, mode_t mode) { return mkdir_any(folder, path, mode); }
