/* The few calls of CUDA's driver that loading makes, over host memory, as strict as the driver:
 * copies run late, in order; a call outside of a context, a source that is not pinned, or a handle
 * that is not alive is refused. Compiled against the real cuda.h (-DREAL_HEADER) its prototypes
 * are checked by the compiler. */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#ifdef REAL_HEADER
#include <cuda.h>
#else
typedef int CUresult, CUdevice;
typedef unsigned long long CUdeviceptr;
typedef struct context *CUcontext;
typedef struct stream *CUstream;
typedef struct event *CUevent;
#define CUDAAPI
#endif

enum { OK = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, INVALID_DEVICE = 101, INVALID_CONTEXT = 201,
       INVALID_HANDLE = 400 };
enum { MEMORY, PINNED, STREAMS, EVENTS, CONTEXTS, KINDS };

struct range { uint64_t address; size_t size; struct range *next; };
struct copy { char *to; const char *from; size_t size; struct copy *next; };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct range *ranges[KINDS];
static long counts[KINDS];
static struct copy *first, *last;
static int begun, ended;
static size_t room = (size_t)1 << 40;
static __thread int depth;

long fake_count(int kind) { return counts[kind]; }
void fake_room(size_t bytes) { room = bytes; }
int fake_pending(void) { return begun - ended; }

static void run(int until) {
    while (ended < until) {
        struct copy *copy = first;
        memcpy(copy->to, copy->from, copy->size);
        first = copy->next;
        if (!first) last = NULL;
        free(copy);
        ended++;
    }
}

static void add(int kind, uint64_t address, size_t size) {
    struct range *range = malloc(sizeof *range);
    *range = (struct range){address, size, ranges[kind]};
    ranges[kind] = range;
    counts[kind]++;
}

static struct range **find(int kind, uint64_t address, size_t size) {
    struct range **at = &ranges[kind];
    while (*at && !((*at)->address <= address && address + size <= (*at)->address + (*at)->size))
        at = &(*at)->next;
    return at;
}

static int drop(int kind, uint64_t address) {
    struct range **at = find(kind, address, 0), *range = *at;
    if (!range || range->address != address) return 0;
    *at = range->next;
    free(range);
    counts[kind]--;
    return 1;
}

#define ENTER if (!depth) return INVALID_CONTEXT; pthread_mutex_lock(&lock)
#define LEAVE(status) do { pthread_mutex_unlock(&lock); return (status); } while (0)

CUresult CUDAAPI cuInit(unsigned int flags) { return flags ? INVALID_VALUE : OK; }

CUresult CUDAAPI cuDeviceGet(CUdevice *device, int ordinal) {
    *device = ordinal + 70; /* a handle is not a number */
    return ordinal == 0 ? OK : INVALID_DEVICE;
}

CUresult CUDAAPI cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice device) {
    if (device != 70) return INVALID_DEVICE;
    *context = (CUcontext)0xfeedbeefcafe; /* wider than an int */
    counts[CONTEXTS]++;
    return OK;
}

CUresult CUDAAPI cuDevicePrimaryCtxRelease_v2(CUdevice device) {
    counts[CONTEXTS]--;
    return device == 70 ? OK : INVALID_DEVICE;
}

CUresult CUDAAPI cuCtxPushCurrent_v2(CUcontext context) {
    if (context != (CUcontext)0xfeedbeefcafe) return INVALID_CONTEXT;
    depth++;
    return OK;
}

CUresult CUDAAPI cuCtxPopCurrent_v2(CUcontext *context) {
    if (!depth) return INVALID_CONTEXT;
    *context = (CUcontext)0xfeedbeefcafe;
    depth--;
    return OK;
}

CUresult CUDAAPI cuMemAlloc_v2(CUdeviceptr *address, size_t size) {
    ENTER;
    if (!size) LEAVE(INVALID_VALUE);
    if (size > room) LEAVE(OUT_OF_MEMORY);
    *address = (CUdeviceptr)(uintptr_t)aligned_alloc(256, (size + 255) / 256 * 256);
    add(MEMORY, *address, size);
    LEAVE(OK);
}

CUresult CUDAAPI cuMemFree_v2(CUdeviceptr address) {
    ENTER;
    run(begun);
    if (!drop(MEMORY, address)) LEAVE(INVALID_VALUE);
    free((void *)(uintptr_t)address);
    LEAVE(OK);
}

CUresult CUDAAPI cuMemHostRegister_v2(void *address, size_t size, unsigned int flags) {
    ENTER;
    if ((uintptr_t)address % 4096 || size % 4096 || flags > 1) LEAVE(INVALID_VALUE);
    add(PINNED, (uintptr_t)address, size);
    LEAVE(OK);
}

CUresult CUDAAPI cuMemHostUnregister(void *address) {
    ENTER;
    LEAVE(begun == ended && drop(PINNED, (uintptr_t)address) ? OK : INVALID_VALUE);
}

CUresult CUDAAPI cuMemcpyHtoDAsync_v2(CUdeviceptr to, const void *from, size_t size, CUstream stream) {
    ENTER;
    if (!*find(STREAMS, (uintptr_t)stream, 0)) LEAVE(INVALID_HANDLE);
    if (!*find(MEMORY, to, size) || !*find(PINNED, (uintptr_t)from, size)) LEAVE(INVALID_VALUE);
    struct copy *copy = malloc(sizeof *copy);
    *copy = (struct copy){(char *)(uintptr_t)to, from, size, NULL};
    if (last) last->next = copy; else first = copy;
    last = copy;
    begun++;
    LEAVE(OK);
}

CUresult CUDAAPI cuStreamCreate(CUstream *stream, unsigned int flags) {
    ENTER;
    if (flags != 1) LEAVE(INVALID_VALUE);
    *stream = malloc(1);
    add(STREAMS, (uintptr_t)*stream, 1);
    LEAVE(OK);
}

CUresult CUDAAPI cuStreamSynchronize(CUstream stream) {
    ENTER;
    run(begun);
    LEAVE(*find(STREAMS, (uintptr_t)stream, 0) ? OK : INVALID_HANDLE);
}

CUresult CUDAAPI cuStreamDestroy_v2(CUstream stream) {
    ENTER;
    LEAVE(drop(STREAMS, (uintptr_t)stream) ? (free(stream), OK) : INVALID_HANDLE);
}

CUresult CUDAAPI cuEventCreate(CUevent *event, unsigned int flags) {
    ENTER;
    if (flags > 7) LEAVE(INVALID_VALUE);
    int *made = malloc(sizeof *made);
    *made = 1 << 30; /* not recorded yet */
    *event = (CUevent)made;
    add(EVENTS, (uintptr_t)made, 1);
    LEAVE(OK);
}

CUresult CUDAAPI cuEventRecord(CUevent event, CUstream stream) {
    ENTER;
    if (!*find(EVENTS, (uintptr_t)event, 0) || !*find(STREAMS, (uintptr_t)stream, 0))
        LEAVE(INVALID_HANDLE);
    *(int *)event = begun;
    LEAVE(OK);
}

CUresult CUDAAPI cuEventSynchronize(CUevent event) {
    ENTER;
    if (!*find(EVENTS, (uintptr_t)event, 0) || *(int *)event > begun) LEAVE(INVALID_HANDLE);
    run(*(int *)event);
    LEAVE(OK);
}

CUresult CUDAAPI cuEventDestroy_v2(CUevent event) {
    ENTER;
    LEAVE(drop(EVENTS, (uintptr_t)event) ? (free(event), OK) : INVALID_HANDLE);
}

CUresult CUDAAPI cuGetErrorName(CUresult error, const char **name) {
    *name = error == INVALID_VALUE ? "CUDA_ERROR_INVALID_VALUE" : "CUDA_ERROR_OTHER";
    return OK;
}
