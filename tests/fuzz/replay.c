/* Runs a fuzzer's entry point over the files of its corpus folder: the regression test of every input that
 * once crashed it. Built instead of libFuzzer's driver when the compiler is not clang. */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int run_file(const char *folder, const char *name)
{
    char path[4096];
    snprintf(path, sizeof(path), "%s/%s", folder, name);
    FILE *file = fopen(path, "rb");
    if (file == NULL)
        return 0;
    static const size_t limit = 1 << 20;
    uint8_t *bytes = malloc(limit);
    size_t size = fread(bytes, 1, limit, file);
    fclose(file);
    /* An exact-size copy lets ASan see a read one byte past the input. */
    uint8_t *exact = malloc(size ? size : 1);
    for (size_t i = 0; i < size; i++)
        exact[i] = bytes[i];
    free(bytes);
    LLVMFuzzerTestOneInput(exact, size);
    free(exact);
    return 1;
}

int main(int argc, char **argv)
{
    int ran = 0;
    LLVMFuzzerTestOneInput((const uint8_t *)"", 0);
    for (int i = 1; i < argc; i++) {
        DIR *dir = opendir(argv[i]);
        if (dir == NULL) {
            fprintf(stderr, "%s: no such corpus folder\n", argv[i]);
            return 1;
        }
        for (struct dirent *entry; (entry = readdir(dir)) != NULL;)
            if (entry->d_name[0] != '.')
                ran += run_file(argv[i], entry->d_name);
        closedir(dir);
    }
    printf("%d inputs\n", ran);
    return ran > 0 || argc < 2 ? 0 : 1;
}
