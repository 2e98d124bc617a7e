/*
 * A Host Compute Service that has one machine, for the driver's own test (app/vm-hyperv/tests/driver.rs): Wine has none. It keeps
 * the rules that the driver relies on (what may be asked of a machine in which state, who frees what), and the test sees and
 * steers it by files in the folder that SLIPWAY_MOCK_HCS names:
 *
 *   calls      one line for each call, with the document that came with it
 *   refuse     a call that is named here fails
 *   exit.json  once it is there, the machine ends, and this is what HCS says of that
 */

#include "mock.h"

#define INVALID_STATE ((HRESULT)0x80370105)
#define SYSTEM_EXITED 1

typedef struct { int kind; const wchar_t *data; void *operation; } Event;
typedef void(CALLBACK *Told)(const Event *, void *);
typedef struct { HRESULT code; wchar_t *result; } Operation;

enum State { NONE, CREATED, RUNNING, PAUSED, ENDED };
static struct {
    CRITICAL_SECTION lock;
    enum State state;
    /* Counts the machines: what belongs to one before is over. */
    LONG number;
    Told told;
    void *context;
    wchar_t console[256];
} machine;

BOOL WINAPI DllMain(HINSTANCE self, DWORD reason, void *reserved)
{
    HMODULE pinned;
    if (reason != DLL_PROCESS_ATTACH)
        return TRUE;
    InitializeCriticalSection(&machine.lock);
    /* Its threads may be in it longer than its user needs it. */
    return GetModuleHandleExW(GET_MODULE_HANDLE_EX_FLAG_PIN | GET_MODULE_HANDLE_EX_FLAG_FROM_ADDRESS, (LPCWSTR)&machine, &pinned);
}

/* Text that the caller frees with LocalFree. */
static wchar_t *given(const wchar_t *text)
{
    size_t bytes = (wcslen(text) + 1) * sizeof *text;
    wchar_t *copy = LocalAlloc(LMEM_FIXED, bytes);
    if (copy)
        memcpy(copy, text, bytes);
    return copy;
}

/* Ends the machine once, and tells it from this thread, as HCS does from one of its own. */
static void ended(LONG number, const wchar_t *how)
{
    Event event = {SYSTEM_EXITED, how, NULL};
    Told told = NULL;
    EnterCriticalSection(&machine.lock);
    if (machine.number == number && machine.state != ENDED) {
        machine.state = ENDED;
        told = machine.told;
    }
    LeaveCriticalSection(&machine.lock);
    if (told)
        told(&event, machine.context);
}

/* A machine's life: a line on its console, then until exit.json is there. Bounded: the test's own patience is shorter. */
static DWORD WINAPI life(void *which)
{
    LONG number = (LONG)(LONG_PTR)which;
    static const char line[] = "[    0.000000] Linux version of the mock\r\n";
    DWORD written;
    HANDLE console = CreateFileW(machine.console, GENERIC_READ | GENERIC_WRITE, 0, NULL, OPEN_EXISTING, 0, NULL);
    if (console != INVALID_HANDLE_VALUE)
        WriteFile(console, line, sizeof line - 1, &written, NULL);
    for (int turn = 0; turn < 6000 && machine.number == number && machine.state != ENDED; turn++) {
        FILE *file = opened(L"exit.json", L"rb");
        if (file) {
            char bytes[4096];
            wchar_t how[4096];
            size_t count = fread(bytes, 1, sizeof bytes - 1, file);
            fclose(file);
            bytes[count] = 0;
            MultiByteToWideChar(CP_UTF8, 0, bytes, -1, how, 4096);
            ended(number, how);
        }
        Sleep(10);
    }
    if (console != INVALID_HANDLE_VALUE)
        CloseHandle(console);
    return 0;
}

static DWORD WINAPI terminated(void *which)
{
    ended((LONG)(LONG_PTR)which, L"{\"Status\":0,\"ExitType\":\"ForcedExit\"}");
    return 0;
}

/* Begins a thread that nobody waits for. */
static HRESULT begun(LPTHREAD_START_ROUTINE what)
{
    HANDLE thread = CreateThread(NULL, 0, what, (void *)(LONG_PTR)machine.number, 0, NULL);
    if (!thread)
        return E_FAIL;
    CloseHandle(thread);
    return S_OK;
}

/* From one state to another. */
static HRESULT moved(const char *call, enum State from, enum State to)
{
    HRESULT code = called(call, NULL);
    EnterCriticalSection(&machine.lock);
    if (code == S_OK && machine.state != from)
        code = INVALID_STATE;
    if (code == S_OK)
        machine.state = to;
    LeaveCriticalSection(&machine.lock);
    return code;
}

/* What an operation comes to is told to who waits for it, not to who began it. */
static HRESULT later(Operation *operation, HRESULT code)
{
    operation->code = code;
    return S_OK;
}

EXPORT void *WINAPI HcsCreateOperation(void *context, void *callback) { return calloc(1, sizeof(Operation)); }

EXPORT void WINAPI HcsCloseOperation(Operation *operation) { free(operation); }

EXPORT HRESULT WINAPI HcsWaitForOperationResult(Operation *operation, DWORD patience, wchar_t **result)
{
    *result = operation->result;
    operation->result = NULL;
    return operation->code;
}

EXPORT HRESULT WINAPI HcsCreateComputeSystem(
    const wchar_t *id, const wchar_t *document, Operation *operation, const void *security, void **handle)
{
    const wchar_t *pipe = wcsstr(document, L"slipway_console-");
    HRESULT code = called("HcsCreateComputeSystem", document);
    if (code == S_OK) {
        swprintf(machine.console, 256, L"\\\\.\\pipe\\%.*ls", pipe ? (int)wcscspn(pipe, L"\"") : 0, pipe ? pipe : L"");
        machine.number++;
        machine.state = CREATED;
        *handle = &machine;
    }
    return later(operation, code);
}

EXPORT void WINAPI HcsCloseComputeSystem(void *handle)
{
    called("HcsCloseComputeSystem", NULL);
    EnterCriticalSection(&machine.lock);
    machine.state = ENDED;
    LeaveCriticalSection(&machine.lock);
}

EXPORT HRESULT WINAPI HcsStartComputeSystem(void *handle, Operation *operation, const wchar_t *options)
{
    HRESULT code = moved("HcsStartComputeSystem", CREATED, RUNNING);
    if (code == REFUSED)
        operation->result = given(L"{\"Error\":-2143878910,\"ErrorMessage\":\"no hypervisor is running\"}");
    return later(operation, code == S_OK ? begun(life) : code);
}

EXPORT HRESULT WINAPI HcsTerminateComputeSystem(void *handle, Operation *operation, const wchar_t *options)
{
    HRESULT code = called("HcsTerminateComputeSystem", NULL);
    return later(operation, code == S_OK ? begun(terminated) : code);
}

EXPORT HRESULT WINAPI HcsPauseComputeSystem(void *handle, Operation *operation, const wchar_t *options)
{
    return later(operation, moved("HcsPauseComputeSystem", RUNNING, PAUSED));
}

EXPORT HRESULT WINAPI HcsResumeComputeSystem(void *handle, Operation *operation, const wchar_t *options)
{
    return later(operation, moved("HcsResumeComputeSystem", PAUSED, RUNNING));
}

EXPORT HRESULT WINAPI HcsModifyComputeSystem(void *handle, Operation *operation, const wchar_t *document, void *identity)
{
    return later(operation, called("HcsModifyComputeSystem", document));
}

EXPORT HRESULT WINAPI HcsGetComputeSystemProperties(void *handle, Operation *operation, const wchar_t *query)
{
    operation->result = given(L"{\"RuntimeId\":\"00112233-4455-6677-8899-aabbccddeeff\",\"State\":\"Created\"}");
    return later(operation, called("HcsGetComputeSystemProperties", NULL));
}

EXPORT HRESULT WINAPI HcsSetComputeSystemCallback(void *handle, int options, void *context, Told told)
{
    machine.context = context;
    machine.told = told;
    return called("HcsSetComputeSystemCallback", NULL);
}

EXPORT HRESULT WINAPI HcsGetServiceProperties(const wchar_t *query, wchar_t **result)
{
    *result = given(L"{\"Properties\":[]}");
    return called("HcsGetServiceProperties", NULL);
}

EXPORT HRESULT WINAPI HcsGrantVmAccess(const wchar_t *id, const wchar_t *file) { return called("HcsGrantVmAccess", file); }
