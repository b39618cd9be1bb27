/*
 * tests/gpu/planned_gpu.h - a GPU that need not be there, in cuDNN's words.
 */
#ifndef DR_PLANNED_GPU_H
#define DR_PLANNED_GPU_H

/* What cuDNN 9.19 reads, with an H100 SXM's numbers (cudaGetDeviceProperties). */
static const char dr_planned_h100[] =
    "{\"maxGridSize\": [2147483647, 65535, 65535], \"maxBlockSize\": [1024, 1024, 64],"
    "\"regsPerBlock\": 65536, \"multiProcessorCount\": 132, \"smClockRateKHz\": 1980000,"
    "\"memClockRateKHz\": 2619000, \"l2CacheSize\": 52428800, \"warpSize\": 32,"
    "\"maxSharedMemoryPerBlock\": 49152, \"maxSharedMemoryPerBlockOptin\": 232448,"
    "\"reservedSharedMemoryPerBlock\": 1024, \"maxRegistersPerSM\": 65536, \"pciDeviceId\": 0,"
    "\"maxCtasPerSM\": 32, \"maxThreadsPerBlock\": 1024, \"maxThreadsPerSM\": 2048,"
    "\"isTccDriver\": 0, \"supportCoopLaunch\": 1, \"deviceVer\": 900, \"driverVer\": 13000,"
    "\"totalGlobalMem\": 84929347584, \"cudaDeviceId\": 0,"
    "\"deviceName\": \"NVIDIA H100 80GB HBM3\"}";

#endif
