/*
 * Windows' virtual disks as far as app/vm-hyperv/src/disk.rs asks for them; Wine's own library answers nothing. It keeps the rules that the
 * program relies on: none is made over a file, none is made smaller, each version of the parameters has its own access. A disk is a
 * file with a head. A test steers it by a file beside the disk, `DISK.refuse`: the name of a call, and Windows' number for why not.
 */
#define _WIN32_WINNT 0x0A00
/* The functions are made here, not taken from elsewhere. */
#define DECLSPEC_IMPORT
#include <stdio.h>
#include <stdlib.h>
#include <wchar.h>
#include <windows.h>
#include <virtdisk.h>

#define EXPORT __declspec(dllexport)
#define MEBIBYTE (1 << 20)

typedef struct { char magic[8]; ULONGLONG size; DWORD block; } Head;

static const GUID microsoft = {0xec984aec, 0xa0f9, 0x47e9, {0x90, 0x1f, 0x71, 0x41, 0x5a, 0x66, 0x34, 0x5b}};
static const char magic[8] = "vhdxfile";

static DWORD refused(const wchar_t *path, const char *call)
{
    wchar_t name[1024];
    char line[64] = "";
    DWORD code = 0;
    swprintf(name, 1024, L"%ls.refuse", path);
    FILE *file = _wfopen(name, L"rb");
    if (!file)
        return 0;
    if (fscanf(file, "%63s %lu", line, &code) != 2 || strcmp(line, call) != 0)
        code = 0;
    fclose(file);
    return code;
}

static BOOL is_vhdx(const VIRTUAL_STORAGE_TYPE *kind)
{
    return kind->DeviceId == VIRTUAL_STORAGE_TYPE_DEVICE_VHDX && !memcmp(&kind->VendorId, &microsoft, sizeof microsoft);
}

EXPORT DWORD WINAPI CreateVirtualDisk(PVIRTUAL_STORAGE_TYPE kind, PCWSTR path, VIRTUAL_DISK_ACCESS_MASK access, PSECURITY_DESCRIPTOR security,
                                      CREATE_VIRTUAL_DISK_FLAG flags, ULONG provider, PCREATE_VIRTUAL_DISK_PARAMETERS wanted,
                                      LPOVERLAPPED overlapped, PHANDLE disk)
{
    Head head = {.size = wanted->Version2.MaximumSize, .block = wanted->Version2.BlockSizeInBytes};
    DWORD written, why;
    memcpy(head.magic, magic, sizeof magic);
    if (!is_vhdx(kind) || wanted->Version != CREATE_VIRTUAL_DISK_VERSION_2 || access != VIRTUAL_DISK_ACCESS_NONE || provider != 0 ||
        head.size % 512 || !head.block || head.block % MEBIBYTE || wanted->Version2.ParentPath || wanted->Version2.SourcePath)
        return ERROR_INVALID_PARAMETER;
    HANDLE file = CreateFileW(path, GENERIC_READ | GENERIC_WRITE, 0, NULL, CREATE_NEW, 0, NULL);
    if (file == INVALID_HANDLE_VALUE)
        return GetLastError();
    /* As a disk that fills up: the file is there, and nothing good in it. */
    if ((why = refused(path, "CreateVirtualDisk")) != 0) {
        CloseHandle(file);
        return why;
    }
    WriteFile(file, &head, sizeof head, &written, NULL);
    *disk = file;
    return 0;
}

EXPORT DWORD WINAPI OpenVirtualDisk(PVIRTUAL_STORAGE_TYPE kind, PCWSTR path, VIRTUAL_DISK_ACCESS_MASK access, OPEN_VIRTUAL_DISK_FLAG flags,
                                    POPEN_VIRTUAL_DISK_PARAMETERS how, PHANDLE disk)
{
    BOOL only_info = how && how->Version == OPEN_VIRTUAL_DISK_VERSION_2 && how->Version2.GetInfoOnly;
    Head head;
    DWORD read, why;
    if (!is_vhdx(kind) || (how && access != VIRTUAL_DISK_ACCESS_NONE) ||
        (!how && access != (VIRTUAL_DISK_ACCESS_GET_INFO | VIRTUAL_DISK_ACCESS_METAOPS)))
        return ERROR_INVALID_PARAMETER;
    if ((why = refused(path, "OpenVirtualDisk")) != 0)
        return why;
    HANDLE file = CreateFileW(path, GENERIC_READ | (only_info ? 0 : GENERIC_WRITE), only_info ? FILE_SHARE_READ | FILE_SHARE_WRITE : 0, NULL,
                              OPEN_EXISTING, 0, NULL);
    if (file == INVALID_HANDLE_VALUE)
        return GetLastError();
    if (!ReadFile(file, &head, sizeof head, &read, NULL) || read != sizeof head || memcmp(head.magic, magic, sizeof magic)) {
        CloseHandle(file);
        return ERROR_FILE_CORRUPT;
    }
    *disk = file;
    return 0;
}

static Head head_of(HANDLE disk)
{
    Head head = {{0}};
    DWORD read;
    SetFilePointer(disk, 0, NULL, FILE_BEGIN);
    ReadFile(disk, &head, sizeof head, &read, NULL);
    return head;
}

EXPORT DWORD WINAPI ResizeVirtualDisk(HANDLE disk, RESIZE_VIRTUAL_DISK_FLAG flags, PRESIZE_VIRTUAL_DISK_PARAMETERS wanted, LPOVERLAPPED overlapped)
{
    Head head = head_of(disk);
    DWORD written;
    ULONGLONG size = wanted->Version1.NewSize;
    if (wanted->Version != RESIZE_VIRTUAL_DISK_VERSION_1 || flags != 0 || size % 512 || size < head.size)
        return ERROR_INVALID_PARAMETER;
    head.size = size;
    SetFilePointer(disk, 0, NULL, FILE_BEGIN);
    return WriteFile(disk, &head, sizeof head, &written, NULL) ? 0 : GetLastError();
}

EXPORT DWORD WINAPI GetVirtualDiskInformation(HANDLE disk, PULONG length, PGET_VIRTUAL_DISK_INFO info, PULONG used)
{
    Head head = head_of(disk);
    if (info->Version != GET_VIRTUAL_DISK_INFO_SIZE || *length < sizeof *info)
        return ERROR_INVALID_PARAMETER;
    info->Size.VirtualSize = head.size;
    info->Size.PhysicalSize = sizeof head;
    info->Size.BlockSize = head.block;
    info->Size.SectorSize = 512;
    return 0;
}
