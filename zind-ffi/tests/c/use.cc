// The header in C++: linkage, enumerations, structures, and handles in smart pointers.
#include <cstring>
#include <iostream>
#include <memory>
#include <stdexcept>
#include <string>

#include <zind.h>
#include <zind.h>

namespace {

template <auto Free>
struct Deleter {
    template <class T>
    void operator()(T *handle) const {
        Free(handle);
    }
};

using Spec = std::unique_ptr<zind_spec, Deleter<zind_spec_free>>;
using Output = std::unique_ptr<zind_output, Deleter<zind_output_free>>;
using Error = std::unique_ptr<zind_error, Deleter<zind_error_free>>;

void check(zind_status status, zind_error *error) {
    Error owned(error);
    if (status != ZIND_STATUS_OK) {
        throw std::runtime_error(zind_error_message(owned.get()));
    }
}

std::string run(const char *const *args) {
    zind_error *error = nullptr;
    zind_spec *spec = nullptr;
    zind_output *output = nullptr;
    zind_status status = zind_spec_new(&spec, &error);
    Spec owned(spec);
    check(status, error);
    check(zind_spec_set_args(spec, args, &error), error);
    check(zind_spec_set_stdin(spec, ZIND_STDIO_NULL, &error), error);
    status = zind_capture(spec, nullptr, 0, &output, &error);
    Output result(output);
    check(status, error);
    zind_exit end = ZIND_EXIT_INIT;
    check(zind_output_exit(output, &end, &error), error);
    if (end.kind != ZIND_EXIT_KIND_EXITED || end.code != 0) {
        throw std::runtime_error("wrong exit");
    }
    const char *text = nullptr;
    std::size_t len = 0;
    check(zind_output_stdout(output, &text, &len), nullptr);
    return std::string(text, len);
}

}  // namespace

int main() {
    const char *const echo[] = {"echo", "hello", nullptr};
    const char *const nothing[] = {"no-such-program", nullptr};
    if (run(echo) != "hello\n") {
        return 1;
    }
    try {
        run(nothing);
        return 2;
    } catch (const std::runtime_error &error) {
        if (std::strstr(error.what(), "no-such-program") == nullptr) {
            return 3;
        }
    }
    std::cout << "ok\n";
    return 0;
}
