// A driver's library, libnvidia-ml.so.1, for a node without GPUs, so that NVIDIA's own device plugin runs there.
//
// What it answers is NVIDIA's own simulation of a DGX A100 with eight GPUs, which comes inside go-nvml as a Go
// package; this gives it the C interface that a driver has (the functions the device plugin calls), and events.
// An XID happens when somebody writes "GPU XID", as "3 79", to the file `events` below /run/nvidia/simulated.
package main

/*
#include <stdlib.h>
#include <string.h>
#include <nvml.h>

typedef const char constant; // Go knows no const, and the declaration has one

// A handle is an address: the Go runtime of the caller refuses pointers that point nowhere.
static char handles[8][64];
static nvmlDevice_t handle(int i) { return (nvmlDevice_t){(void *)handles[i]}; }
static int number(nvmlDevice_t d) { return (int)(((char *)d.handle - &handles[0][0]) / 64); }
static nvmlEventSet_t eventSet() { return (nvmlEventSet_t){(void *)handles[0]}; }
static void copy(char *to, char *from, unsigned int size) { strncpy(to, from, size - 1); to[size - 1] = 0; free(from); }
*/
import "C"

import (
	"fmt"
	"os"
	"time"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock/dgxa100"
)

const events = "/run/nvidia/simulated/events"

var machine = dgxa100.New()

func main() {}

func text(to *C.char, size C.uint, value string, result nvml.Return) C.nvmlReturn_t {
	C.copy(to, C.CString(value), size)
	return C.nvmlReturn_t(result)
}

func gpu(device C.nvmlDevice_t) nvml.Device { return machine.Devices[C.number(device)] }

//export nvmlInit_v2
func nvmlInit_v2() C.nvmlReturn_t { return C.nvmlReturn_t(machine.Init()) }

//export nvmlShutdown
func nvmlShutdown() C.nvmlReturn_t { return C.nvmlReturn_t(machine.Shutdown()) }

//export nvmlErrorString
func nvmlErrorString(result C.nvmlReturn_t) *C.constant {
	return (*C.constant)(C.CString(fmt.Sprintf("NVML error %d", int(result))))
}

//export nvmlSystemGetDriverVersion
func nvmlSystemGetDriverVersion(to *C.char, size C.uint) C.nvmlReturn_t {
	version, result := machine.SystemGetDriverVersion()
	return text(to, size, version, result)
}

//export nvmlSystemGetNVMLVersion
func nvmlSystemGetNVMLVersion(to *C.char, size C.uint) C.nvmlReturn_t {
	version, result := machine.SystemGetNVMLVersion()
	return text(to, size, version, result)
}

//export nvmlSystemGetCudaDriverVersion
func nvmlSystemGetCudaDriverVersion(to *C.int) C.nvmlReturn_t {
	version, result := machine.SystemGetCudaDriverVersion()
	*to = C.int(version)
	return C.nvmlReturn_t(result)
}

//export nvmlDeviceGetCount_v2
func nvmlDeviceGetCount_v2(to *C.uint) C.nvmlReturn_t {
	count, result := machine.DeviceGetCount()
	*to = C.uint(count)
	return C.nvmlReturn_t(result)
}

//export nvmlDeviceGetHandleByIndex_v2
func nvmlDeviceGetHandleByIndex_v2(index C.uint, to *C.nvmlDevice_t) C.nvmlReturn_t {
	if int(index) >= len(machine.Devices) {
		return C.NVML_ERROR_INVALID_ARGUMENT
	}
	*to = C.handle(C.int(index))
	return C.NVML_SUCCESS
}

//export nvmlDeviceGetHandleByUUID
func nvmlDeviceGetHandleByUUID(uuid *C.constant, to *C.nvmlDevice_t) C.nvmlReturn_t {
	for index, device := range machine.Devices {
		if found, _ := device.GetUUID(); found == C.GoString((*C.char)(uuid)) {
			*to = C.handle(C.int(index))
			return C.NVML_SUCCESS
		}
	}
	return C.NVML_ERROR_NOT_FOUND
}

//export nvmlDeviceGetUUID
func nvmlDeviceGetUUID(device C.nvmlDevice_t, to *C.char, size C.uint) C.nvmlReturn_t {
	uuid, result := gpu(device).GetUUID()
	return text(to, size, uuid, result)
}

//export nvmlDeviceGetName
func nvmlDeviceGetName(device C.nvmlDevice_t, to *C.char, size C.uint) C.nvmlReturn_t {
	name, result := gpu(device).GetName()
	return text(to, size, name, result)
}

//export nvmlDeviceGetMinorNumber
func nvmlDeviceGetMinorNumber(device C.nvmlDevice_t, to *C.uint) C.nvmlReturn_t {
	minor, result := gpu(device).GetMinorNumber()
	*to = C.uint(minor)
	return C.nvmlReturn_t(result)
}

//export nvmlDeviceGetCudaComputeCapability
func nvmlDeviceGetCudaComputeCapability(device C.nvmlDevice_t, major, minor *C.int) C.nvmlReturn_t {
	one, two, result := gpu(device).GetCudaComputeCapability()
	*major, *minor = C.int(one), C.int(two)
	return C.nvmlReturn_t(result)
}

//export nvmlDeviceGetMemoryInfo
func nvmlDeviceGetMemoryInfo(device C.nvmlDevice_t, to *C.nvmlMemory_t) C.nvmlReturn_t {
	memory, result := gpu(device).GetMemoryInfo()
	to.total, to.free, to.used = C.ulonglong(memory.Total), C.ulonglong(memory.Free), C.ulonglong(memory.Used)
	return C.nvmlReturn_t(result)
}

//export nvmlDeviceGetPciInfo_v3
func nvmlDeviceGetPciInfo_v3(device C.nvmlDevice_t, to *C.nvmlPciInfo_t) C.nvmlReturn_t {
	info, result := gpu(device).GetPciInfo()
	address := gpu(device).(*dgxa100.Device).PciBusID
	to.pciDeviceId = C.uint(info.PciDeviceId)
	text(&to.busId[0], C.uint(len(to.busId)), address, result)
	return text(&to.busIdLegacy[0], C.uint(len(to.busIdLegacy)), address, result)
}

//export nvmlDeviceGetMigMode
func nvmlDeviceGetMigMode(device C.nvmlDevice_t, current, pending *C.uint) C.nvmlReturn_t {
	now, next, result := gpu(device).GetMigMode()
	*current, *pending = C.uint(now), C.uint(next)
	return C.nvmlReturn_t(result)
}

//export nvmlDeviceGetTopologyCommonAncestor
func nvmlDeviceGetTopologyCommonAncestor(one, other C.nvmlDevice_t, to *C.nvmlGpuTopologyLevel_t) C.nvmlReturn_t {
	*to = C.NVML_TOPOLOGY_SYSTEM
	return C.NVML_SUCCESS
}

//export nvmlDeviceGetNvLinkState
func nvmlDeviceGetNvLinkState(device C.nvmlDevice_t, link C.uint, to *C.nvmlEnableState_t) C.nvmlReturn_t {
	return C.NVML_ERROR_NOT_SUPPORTED
}

//export nvmlEventSetCreate
func nvmlEventSetCreate(to *C.nvmlEventSet_t) C.nvmlReturn_t {
	*to = C.eventSet()
	return C.NVML_SUCCESS
}

//export nvmlEventSetFree
func nvmlEventSetFree(set C.nvmlEventSet_t) C.nvmlReturn_t { return C.NVML_SUCCESS }

//export nvmlDeviceGetSupportedEventTypes
func nvmlDeviceGetSupportedEventTypes(device C.nvmlDevice_t, to *C.ulonglong) C.nvmlReturn_t {
	*to = C.nvmlEventTypeXidCriticalError
	return C.NVML_SUCCESS
}

//export nvmlDeviceRegisterEvents
func nvmlDeviceRegisterEvents(device C.nvmlDevice_t, types C.ulonglong, set C.nvmlEventSet_t) C.nvmlReturn_t {
	return C.NVML_SUCCESS
}

//export nvmlEventSetWait_v2
func nvmlEventSetWait_v2(set C.nvmlEventSet_t, to *C.nvmlEventData_t, milliseconds C.uint) C.nvmlReturn_t {
	deadline := time.Now().Add(time.Duration(milliseconds) * time.Millisecond)
	for ; time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		content, err := os.ReadFile(events)
		if err != nil || os.Remove(events) != nil {
			continue
		}
		var index, xid int
		if _, err := fmt.Sscanf(string(content), "%d %d", &index, &xid); err != nil || index >= len(machine.Devices) {
			continue
		}
		to.device, to.eventType, to.eventData = C.handle(C.int(index)), C.nvmlEventTypeXidCriticalError, C.ulonglong(xid)
		to.gpuInstanceId, to.computeInstanceId = 0xFFFFFFFF, 0xFFFFFFFF
		return C.NVML_SUCCESS
	}
	return C.NVML_ERROR_TIMEOUT
}
