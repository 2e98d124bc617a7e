/* How the mocks of Hyper-V's libraries tell a test what they were asked, and are told to refuse: see computecore.c. */
#include <stdio.h>
#include <stdlib.h>
#include <wchar.h>
#include <windows.h>

#define EXPORT __declspec(dllexport)
#define REFUSED ((HRESULT)0x80370102)

/* A file in the test's folder. */
static FILE *opened(const wchar_t *name, const wchar_t *mode)
{
    wchar_t path[1024];
    const wchar_t *folder = _wgetenv(L"SLIPWAY_MOCK_HCS");
    if (!folder || swprintf(path, 1024, L"%ls\\%ls", folder, name) < 0)
        return NULL;
    return _wfopen(path, mode);
}

/* Notes a call; whether it is to be refused. */
static HRESULT called(const char *name, const wchar_t *with)
{
    char line[256] = "";
    FILE *calls = opened(L"calls", L"ab"), *refuse = opened(L"refuse", L"rb");
    if (calls) {
        char *text = calloc(4, (with ? wcslen(with) : 0) + 1);
        if (text && with)
            WideCharToMultiByte(CP_UTF8, 0, with, -1, text, 4 * (int)wcslen(with) + 1, NULL, NULL);
        for (char *at = text; at && *at; at++)
            if (*at == '\n')
                *at = ' ';
        fprintf(calls, "%s %s\n", name, text ? text : "");
        fclose(calls);
        free(text);
    }
    if (refuse) {
        if (!fgets(line, sizeof line, refuse))
            line[0] = 0;
        fclose(refuse);
    }
    line[strcspn(line, "\r\n")] = 0;
    return strcmp(line, name) == 0 ? REFUSED : S_OK;
}

