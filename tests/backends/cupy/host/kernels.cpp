// The kernels, as the CUDA compiler gets them, behind one function that Python can call.
//
// KERNELS is KERNEL_NAMED(im2col), KERNEL_NAMED(col2im) and so on, given with -D.
#include "cuda_on_host.h"

#include "kernels.cu"

static const struct {
    const char *name;
    void (*call)(void **);
} named[] = {
#define KERNEL_NAMED(kernel) {#kernel, [](void **arguments) { host::call(kernel, arguments); }}
    KERNELS
};

// Under AddressSanitizer each array is copied into memory of its exact size, so that one step beyond it is seen.
#ifdef __SANITIZE_ADDRESS__
static constexpr bool IN_COPIES = true;
#else
static constexpr bool IN_COPIES = false;
#endif

struct Copy {
    char *original, *copy;
    size_t size;
};

static void run(unsigned block_count)
{
    for (unsigned i = 0; i < block_count && !host::failure; i++) {
        const unsigned number = host::backward ? block_count - 1 - i : i;
        blockIdx = {number % gridDim.x, number / gridDim.x % gridDim.y, number / gridDim.x / gridDim.y};
        host::run_block();
    }
}

// Runs a kernel; returns null, or what went wrong. `arguments` point to the values; `sizes` are the bytes of what is
// behind a pointer, 0 for a number or null.
extern "C" const char *launch(const char *name, const unsigned *grid, const unsigned *block, void **arguments,
                              const size_t *sizes, int count, int backward)
{
    static std::mutex one_at_a_time;
    const std::lock_guard<std::mutex> turn(one_at_a_time);

    gridDim = {grid[0], grid[1], grid[2]};
    blockDim = {block[0], block[1], block[2]};
    if (blockDim.size() == 0 || gridDim.size() == 0)
        return "no threads";
    if (blockDim.size() > THREADS || gridDim.y > 65535 || gridDim.z > 65535)
        return "more threads in a block, or more blocks in a grid, than are allowed";
    host::kernel = nullptr;
    for (const auto &one : named)
        if (strcmp(one.name, name) == 0)
            host::kernel = one.call;
    if (!host::kernel)
        return "no such kernel";

    std::vector<Copy> copies;
    std::vector<char *> pointers(count);
    std::vector<void *> values(arguments, arguments + count);
    for (int i = 0; IN_COPIES && i < count; i++) {
        if (sizes[i] == 0)
            continue;
        char *original = *static_cast<char **>(arguments[i]);
        auto known = std::find_if(copies.begin(), copies.end(), [&](const Copy &c) { return c.original == original; });
        if (known == copies.end()) {
            copies.push_back({original, static_cast<char *>(malloc(sizes[i])), sizes[i]});
            known = copies.end() - 1;
            memcpy(known->copy, original, sizes[i]);
        }
        pointers[i] = known->copy;
        values[i] = &pointers[i];
    }

    host::kernel_arguments = values.data();
    host::backward = backward;
    host::failure = nullptr;
    run(gridDim.size());

    for (const Copy &copy : copies) {
        memcpy(copy.original, copy.copy, copy.size);
        free(copy.copy);
    }
    return host::failure;
}
