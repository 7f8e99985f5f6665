// A double of NVIDIA's driver library: one device, whose memory is the host's and whose streams are done at once.
// It checks what a caller can do wrong: no current context, unknown handles, memory that is not registered.
#include <dlfcn.h>

#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <vector>

namespace {
enum { OK = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, INVALID_PTX = 218, INVALID_CONTEXT = 201, ALREADY_REGISTERED = 712,
       NOT_REGISTERED = 713, INVALID_HANDLE = 400, NOT_FOUND = 500, CAPTURE_INVALIDATED = 901, NOT_SUPPORTED = 801 };
using Work = std::function<void()>;
struct Stream { bool capturing = false, broken = false; std::vector<Work> work; };
struct Event { std::chrono::steady_clock::time_point at; };
struct Kernel {
    void (*run)(void**, unsigned, unsigned, unsigned, unsigned);
    const unsigned* (*sizes)();
    int shared = 48 * 1024;
};

int context, retained;
thread_local std::vector<void*> current;
std::set<void*> live;                      // streams, events, modules, graphs, device memory
std::map<char*, std::size_t> registered;
std::map<std::string, Kernel> kernels;

template <class T> T* made(T* object) { live.insert(object); return object; }
template <class T> int gone(void* object) {
    if (!live.erase(object)) return INVALID_HANDLE;
    delete static_cast<T*>(object);
    return OK;
}
bool pinned(const void* at, std::size_t size) {
    auto next = registered.upper_bound(static_cast<char*>(const_cast<void*>(at)));
    if (next == registered.begin()) return false;
    auto [start, length] = *--next;
    return static_cast<const char*>(at) + size <= start + length;
}
int put(void* stream, Work work) {
    if (!live.count(stream)) return INVALID_HANDLE;
    auto* on = static_cast<Stream*>(stream);
    if (on->capturing) on->work.push_back(work); else work();
    return OK;
}
}  // namespace

#define CALL extern "C" int
#define WITH_CONTEXT if (current.empty()) return INVALID_CONTEXT

extern "C" int double_live() { return static_cast<int>(live.size() + registered.size()) + retained; }

CALL cuInit(unsigned) { return OK; }
CALL cuDriverGetVersion(int* version) { *version = 13000; return OK; }
CALL cuGetErrorName(int code, const char** name) {
    static const std::map<int, const char*> names{
        {INVALID_VALUE, "CUDA_ERROR_INVALID_VALUE"}, {OUT_OF_MEMORY, "CUDA_ERROR_OUT_OF_MEMORY"}};
    *name = names.count(code) ? names.at(code) : nullptr;
    return OK;
}
CALL cuGetErrorString(int code, const char** text) {
    *text = code == OUT_OF_MEMORY ? "out of memory" : "an error of the double";
    return OK;
}
CALL cuDeviceGetCount(int* count) { *count = 1; return OK; }
CALL cuDeviceGet(int* device, int) { *device = 0; return OK; }
CALL cuDeviceGetName(char* name, int length, int) { std::strncpy(name, "double of a GPU", length); return OK; }
CALL cuDeviceGetAttribute(int* value, int attribute, int) { *value = attribute == 75 ? 9 : attribute == 76 ? 0 : 132; return OK; }
CALL cuDeviceTotalMem_v2(std::size_t* size, int) { *size = std::size_t{1} << 36; return OK; }
CALL cuDevicePrimaryCtxRetain(void** to, int) { *to = &context; ++retained; return OK; }
CALL cuDevicePrimaryCtxRelease_v2(int) { --retained; return OK; }
CALL cuCtxPushCurrent_v2(void* what) { current.push_back(what); return OK; }
CALL cuCtxPopCurrent_v2(void** what) { WITH_CONTEXT; *what = current.back(); current.pop_back(); return OK; }
CALL cuCtxSynchronize() { WITH_CONTEXT; return OK; }
CALL cuStreamCreate(void** to, unsigned flags) { WITH_CONTEXT; *to = made(new Stream); return flags == 1 ? OK : INVALID_VALUE; }
CALL cuStreamDestroy_v2(void* stream) { WITH_CONTEXT; return gone<Stream>(stream); }
CALL cuEventCreate(void** to, unsigned) { WITH_CONTEXT; *to = made(new Event); return OK; }
CALL cuEventDestroy_v2(void* event) { WITH_CONTEXT; return gone<Event>(event); }
CALL cuEventRecord(void* event, void* stream) {
    WITH_CONTEXT;
    if (!live.count(event)) return INVALID_HANDLE;
    return put(stream, [event] { static_cast<Event*>(event)->at = std::chrono::steady_clock::now(); });
}
CALL cuStreamWaitEvent(void* stream, void* event, unsigned) { WITH_CONTEXT; return live.count(stream) && live.count(event) ? OK : INVALID_HANDLE; }
CALL cuEventSynchronize(void* event) { WITH_CONTEXT; return live.count(event) ? OK : INVALID_HANDLE; }
CALL cuEventElapsedTime_v2(float* ms, void* start, void* stop) {
    WITH_CONTEXT;
    *ms = std::chrono::duration<float, std::milli>(static_cast<Event*>(stop)->at - static_cast<Event*>(start)->at).count();
    return OK;
}
CALL cuEventElapsedTime(float* ms, void* start, void* stop) { return cuEventElapsedTime_v2(ms, start, stop); }
CALL cuMemAlloc_v2(std::uintptr_t* to, std::size_t size) {
    WITH_CONTEXT;
    if (size > std::size_t{1} << 36) return OUT_OF_MEMORY;
    *to = reinterpret_cast<std::uintptr_t>(made(new char[size]));
    return OK;
}
CALL cuMemFree_v2(std::uintptr_t at) {
    WITH_CONTEXT;
    if (!live.erase(reinterpret_cast<void*>(at))) return INVALID_VALUE;
    delete[] reinterpret_cast<char*>(at);
    return OK;
}
CALL cuMemHostRegister_v2(void* at, std::size_t size, unsigned) {
    WITH_CONTEXT;
    if (reinterpret_cast<std::uintptr_t>(at) % 4096 || size % 4096 || !size) return INVALID_VALUE;
    return registered.emplace(static_cast<char*>(at), size).second ? OK : ALREADY_REGISTERED;
}
CALL cuMemHostUnregister(void* at) { WITH_CONTEXT; return registered.erase(static_cast<char*>(at)) ? OK : NOT_REGISTERED; }
CALL cuMemcpyHtoDAsync_v2(std::uintptr_t to, const void* from, std::size_t size, void* stream) {
    WITH_CONTEXT;
    if (!pinned(from, size)) return INVALID_VALUE;
    return put(stream, [=] { std::memcpy(reinterpret_cast<void*>(to), from, size); });
}
CALL cuMemcpyDtoHAsync_v2(void* to, std::uintptr_t from, std::size_t size, void* stream) {
    WITH_CONTEXT;
    if (!pinned(to, size)) return INVALID_VALUE;
    return put(stream, [=] { std::memcpy(to, reinterpret_cast<void*>(from), size); });
}
CALL cuMemsetD8Async(std::uintptr_t at, unsigned char value, std::size_t size, void* stream) {
    WITH_CONTEXT;
    return put(stream, [=] { std::memset(reinterpret_cast<void*>(at), value, size); });
}
CALL cuModuleLoadData(void** to, const void* image) {
    WITH_CONTEXT;
    if (!std::strstr(static_cast<const char*>(image), ".visible .entry")) return INVALID_PTX;
    *to = made(new std::string(static_cast<const char*>(image)));
    return OK;
}
CALL cuModuleLoadDataEx(void** to, const void* image, unsigned number, int* options, void** values) {
    for (unsigned i = 0; i < number; ++i)
        if (options[i] == 4 || options[i] == 6) values[i] = nullptr;  // the lengths of the compiler's messages
    return cuModuleLoadData(to, image);
}
CALL cuModuleUnload(void* module) { WITH_CONTEXT; return gone<std::string>(module); }
CALL cuModuleGetFunction(void** to, void* module, const char* name) {
    WITH_CONTEXT;
    auto run = reinterpret_cast<decltype(Kernel::run)>(dlsym(RTLD_DEFAULT, (std::string("run_") + name).c_str()));
    auto sizes = reinterpret_cast<decltype(Kernel::sizes)>(dlsym(RTLD_DEFAULT, (std::string("sizes_") + name).c_str()));
    if (!live.count(module) || !run || !sizes || static_cast<std::string*>(module)->find(name) == std::string::npos) return NOT_FOUND;
    *to = &kernels.emplace(name, Kernel{run, sizes}).first->second;
    return OK;
}
CALL cuFuncSetAttribute(void* kernel, int, int value) {
    if (value > 227 * 1024) return INVALID_VALUE;
    static_cast<Kernel*>(kernel)->shared = value;
    return OK;
}
CALL cuFuncSetBlockShape(void*, int, int, int) { return OK; }
CALL cuLaunchKernel(void* kernel, unsigned x, unsigned y, unsigned z, unsigned block, unsigned, unsigned, unsigned shared,
                    void* stream, void** arguments, void** packed) {
    WITH_CONTEXT;
    auto* to_run = static_cast<Kernel*>(kernel);
    if (block > 1024 || static_cast<int>(shared) > to_run->shared) return INVALID_VALUE;
    if (!live.count(stream)) return INVALID_HANDLE;
    auto* on = static_cast<Stream*>(stream);
    std::vector<void*> unpacked;
    if (packed) {  // the address of a buffer with all arguments, each aligned to its size
        auto at = reinterpret_cast<std::uintptr_t>(packed[1]);
        for (auto size = to_run->sizes(); *size; at += *size++) {
            at = (at + *size - 1) / *size * *size;
            unpacked.push_back(reinterpret_cast<void*>(at));
        }
        arguments = unpacked.data();
    }
    on->broken = on->capturing;  // it would have to copy the arguments
    if (!on->capturing) to_run->run(arguments, x, y, z, block);
    return OK;
}
CALL cuStreamBeginCapture_v2(void* stream, int mode) {
    WITH_CONTEXT;
    auto* on = static_cast<Stream*>(stream);
    if (on->capturing || mode != 1) return INVALID_VALUE;
    on->capturing = true, on->broken = false, on->work.clear();
    return OK;
}
CALL cuStreamEndCapture(void* stream, void** graph) {
    WITH_CONTEXT;
    auto* on = static_cast<Stream*>(stream);
    if (!on->capturing) return INVALID_VALUE;
    on->capturing = false, *graph = nullptr;
    if (on->broken) return CAPTURE_INVALIDATED;
    *graph = made(new std::vector<Work>(on->work));
    return OK;
}
CALL cuGraphInstantiateWithFlags(void** to, void* graph, unsigned long long) {
    *to = made(new std::vector<Work>(*static_cast<std::vector<Work>*>(graph)));
    return OK;
}
CALL cuGraphDestroy(void* graph) { return gone<std::vector<Work>>(graph); }
CALL cuGraphExecDestroy(void* graph) { return gone<std::vector<Work>>(graph); }
CALL cuGraphLaunch(void* graph, void* stream) {
    WITH_CONTEXT;
    if (!live.count(graph)) return INVALID_HANDLE;
    for (auto& work : *static_cast<std::vector<Work>*>(graph)) put(stream, work);
    return OK;
}
CALL cuGetProcAddress_v2(const char* symbol, void** to, int, std::uint64_t, int* status) {
    const std::string name = symbol;
    for (const auto& known : {name + "_v2", name, name + "WithFlags"})
        if ((*to = dlsym(RTLD_DEFAULT, known.c_str()))) break;
    if (status) *status = *to ? 0 : 1;
    return *to ? OK : NOT_FOUND;
}

// pycuda is linked to these too; seqd calls none of them.
#define ABSENT(name) CALL name() { return NOT_SUPPORTED; }
ABSENT(cuArray3DCreate_v2) ABSENT(cuArray3DGetDescriptor_v2) ABSENT(cuArrayCreate_v2) ABSENT(cuArrayDestroy)
ABSENT(cuArrayGetDescriptor_v2) ABSENT(cuCtxAttach) ABSENT(cuCtxCreate_v4) ABSENT(cuCtxDetach)
ABSENT(cuCtxDisablePeerAccess) ABSENT(cuCtxEnablePeerAccess) ABSENT(cuCtxGetApiVersion)
ABSENT(cuCtxGetCacheConfig) ABSENT(cuCtxGetDevice) ABSENT(cuCtxGetLimit) ABSENT(cuCtxGetSharedMemConfig)
ABSENT(cuCtxSetCacheConfig) ABSENT(cuCtxSetLimit) ABSENT(cuCtxSetSharedMemConfig) ABSENT(cuDeviceCanAccessPeer)
ABSENT(cuDeviceComputeCapability) ABSENT(cuDeviceGetByPCIBusId) ABSENT(cuDeviceGetPCIBusId) ABSENT(cuEventQuery)
ABSENT(cuFuncGetAttribute) ABSENT(cuFuncSetCacheConfig) ABSENT(cuFuncSetSharedSize)
ABSENT(cuIpcCloseMemHandle) ABSENT(cuIpcGetEventHandle) ABSENT(cuIpcGetMemHandle)
ABSENT(cuIpcOpenEventHandle) ABSENT(cuIpcOpenMemHandle_v2) ABSENT(cuLaunch) ABSENT(cuLaunchGrid)
ABSENT(cuLaunchGridAsync) ABSENT(cuLinkAddData_v2) ABSENT(cuLinkAddFile_v2) ABSENT(cuLinkComplete)
ABSENT(cuLinkCreate_v2) ABSENT(cuLinkDestroy) ABSENT(cuMemAllocManaged) ABSENT(cuMemAllocPitch_v2)
ABSENT(cuMemFreeHost) ABSENT(cuMemGetAddressRange_v2) ABSENT(cuMemGetInfo_v2) ABSENT(cuMemHostAlloc)
ABSENT(cuMemHostGetDevicePointer_v2) ABSENT(cuMemHostGetFlags) ABSENT(cuMemcpy2DAsync_v2)
ABSENT(cuMemcpy2DUnaligned_v2) ABSENT(cuMemcpy2D_v2) ABSENT(cuMemcpy3DAsync_v2) ABSENT(cuMemcpy3DPeer)
ABSENT(cuMemcpy3DPeerAsync) ABSENT(cuMemcpy3D_v2) ABSENT(cuMemcpyAtoA_v2) ABSENT(cuMemcpyAtoD_v2)
ABSENT(cuMemcpyAtoH_v2) ABSENT(cuMemcpyDtoA_v2) ABSENT(cuMemcpyDtoDAsync_v2) ABSENT(cuMemcpyDtoD_v2)
ABSENT(cuMemcpyDtoH_v2) ABSENT(cuMemcpyHtoA_v2) ABSENT(cuMemcpyHtoD_v2) ABSENT(cuMemcpyPeer)
ABSENT(cuMemcpyPeerAsync) ABSENT(cuMemsetD16Async) ABSENT(cuMemsetD16_v2) ABSENT(cuMemsetD2D16Async)
ABSENT(cuMemsetD2D16_v2) ABSENT(cuMemsetD2D32Async) ABSENT(cuMemsetD2D32_v2) ABSENT(cuMemsetD2D8Async)
ABSENT(cuMemsetD2D8_v2) ABSENT(cuMemsetD32Async) ABSENT(cuMemsetD32_v2) ABSENT(cuMemsetD8_v2)
ABSENT(cuModuleGetGlobal_v2) ABSENT(cuModuleGetSurfRef) ABSENT(cuModuleGetTexRef) ABSENT(cuModuleLoad)
ABSENT(cuParamSetSize) ABSENT(cuParamSetTexRef) ABSENT(cuParamSetf) ABSENT(cuParamSeti)
ABSENT(cuParamSetv) ABSENT(cuProfilerInitialize) ABSENT(cuProfilerStart) ABSENT(cuProfilerStop)
ABSENT(cuStreamAttachMemAsync) ABSENT(cuStreamQuery) ABSENT(cuStreamSynchronize) ABSENT(cuSurfRefGetArray)
ABSENT(cuSurfRefSetArray) ABSENT(cuTexRefCreate) ABSENT(cuTexRefDestroy) ABSENT(cuTexRefGetAddressMode)
ABSENT(cuTexRefGetAddress_v2) ABSENT(cuTexRefGetArray) ABSENT(cuTexRefGetFilterMode) ABSENT(cuTexRefGetFlags)
ABSENT(cuTexRefGetFormat) ABSENT(cuTexRefSetAddress2D_v3) ABSENT(cuTexRefSetAddressMode)
ABSENT(cuTexRefSetAddress_v2) ABSENT(cuTexRefSetArray) ABSENT(cuTexRefSetFilterMode) ABSENT(cuTexRefSetFlags)
ABSENT(cuTexRefSetFormat)
