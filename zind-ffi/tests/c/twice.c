/* The header can be included twice, and first. */
#include <zind.h>
#include <zind.h>

int main(void) {
    return zind_abi_version() == ZIND_ABI_VERSION ? 0 : 1;
}
