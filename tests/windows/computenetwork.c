/*
 * A Host Compute Network for the driver's own test (app/vm-hyperv/tests/driver.rs): Wine has none. It keeps what the driver relies on:
 * an endpoint is made once until it is deleted, and outlives whoever made it. The test sees and steers it as computecore.c, and by
 *
 *   endpoint           the id of the endpoint that there is; one that a test writes was left by a crash
 *   no-default-switch  this Windows is a server: that network is not there
 *   own-network        our own network is there
 */
#include "mock.h"
#include <objbase.h>

#define NO_NETWORK ((HRESULT)0x803b0001)
#define NO_ENDPOINT ((HRESULT)0x803b0002)
#define EXISTS ((HRESULT)0x803b0010)

static const GUID default_switch = {0xc08cb7b8, 0x9b3c, 0x408e, {0x8e, 0x30, 0x5e, 0x16, 0xa3, 0xae, 0xb4, 0x44}};
static int open_handles;

static wchar_t *given(const wchar_t *text)
{
    size_t bytes = (wcslen(text) + 1) * sizeof *text;
    wchar_t *copy = CoTaskMemAlloc(bytes);
    if (copy)
        memcpy(copy, text, bytes);
    return copy;
}

static void text_of(const GUID *id, wchar_t text[40])
{
    wchar_t braced[40];
    StringFromGUID2(id, braced, 40);
    braced[37] = 0;
    wcscpy(text, braced + 1);
    _wcslwr(text);
}

static BOOL there(const wchar_t *name)
{
    FILE *file = opened(name, L"rb");
    if (file)
        fclose(file);
    return file != NULL;
}

static BOOL is_there(const GUID *id)
{
    wchar_t wanted[40], found[40] = L"";
    char line[64] = "";
    FILE *file = opened(L"endpoint", L"rb");
    if (!file)
        return FALSE;
    if (!fgets(line, sizeof line, file))
        line[0] = 0;
    fclose(file);
    MultiByteToWideChar(CP_UTF8, 0, line, -1, found, 40);
    text_of(id, wanted);
    return wcscmp(wanted, found) == 0;
}

static HRESULT told(HRESULT code, wchar_t **why)
{
    *why = code == S_OK ? NULL : given(L"{\"Success\":false,\"Error\":\"the network service refused\"}");
    return code;
}

EXPORT HRESULT WINAPI HcnOpenNetwork(const GUID *id, void **network, wchar_t **why)
{
    wchar_t text[40];
    text_of(id, text);
    HRESULT code = called("HcnOpenNetwork", text);
    BOOL found = IsEqualGUID(id, &default_switch) ? !there(L"no-default-switch") : there(L"own-network");
    if (code == S_OK && !found)
        code = NO_NETWORK;
    if (code == S_OK) {
        *network = &open_handles;
        open_handles++;
    }
    return told(code, why);
}

EXPORT HRESULT WINAPI HcnCreateNetwork(const GUID *id, const wchar_t *settings, void **network, wchar_t **why)
{
    HRESULT code = called("HcnCreateNetwork", settings);
    FILE *file = code == S_OK ? opened(L"own-network", L"wb") : NULL;
    if (file)
        fclose(file);
    if (code == S_OK) {
        *network = &open_handles;
        open_handles++;
    }
    return told(code, why);
}

EXPORT HRESULT WINAPI HcnCloseNetwork(void *network)
{
    open_handles--;
    return called("HcnCloseNetwork", NULL);
}

EXPORT HRESULT WINAPI HcnCreateEndpoint(void *network, const GUID *id, const wchar_t *settings, void **endpoint, wchar_t **why)
{
    wchar_t text[40];
    HRESULT code = called("HcnCreateEndpoint", settings);
    if (code == S_OK && there(L"endpoint"))
        code = EXISTS;
    text_of(id, text);
    FILE *file = code == S_OK ? opened(L"endpoint", L"wb") : NULL;
    if (file) {
        fprintf(file, "%ls", text);
        fclose(file);
        *endpoint = &open_handles;
        open_handles++;
    }
    return told(code, why);
}

EXPORT HRESULT WINAPI HcnQueryEndpointProperties(void *endpoint, const wchar_t *query, wchar_t **properties, wchar_t **why)
{
    HRESULT code = called("HcnQueryEndpointProperties", query);
    if (code == S_OK)
        *properties = given(L"{\"MacAddress\":\"00-15-5D-AA-BB-CC\",\"IpConfigurations\":[{\"IpAddress\":\"172.20.16.9\",\"PrefixLength\":20}],"
                            L"\"Routes\":[{\"NextHop\":\"172.20.16.1\",\"DestinationPrefix\":\"0.0.0.0/0\"}]}");
    return told(code, why);
}

EXPORT HRESULT WINAPI HcnCloseEndpoint(void *endpoint)
{
    open_handles--;
    return called("HcnCloseEndpoint", NULL);
}

EXPORT HRESULT WINAPI HcnDeleteEndpoint(const GUID *id, wchar_t **why)
{
    wchar_t path[1024];
    char line[64];
    /* With how many handles are open: one that was forgotten shows. */
    sprintf(line, "%d open", open_handles);
    MultiByteToWideChar(CP_UTF8, 0, line, -1, path, 64);
    HRESULT code = called("HcnDeleteEndpoint", path);
    if (code == S_OK && !is_there(id))
        code = NO_ENDPOINT;
    if (code == S_OK) {
        swprintf(path, 1024, L"%ls\\endpoint", _wgetenv(L"SLIPWAY_MOCK_HCS"));
        DeleteFileW(path);
    }
    return told(code, why);
}
