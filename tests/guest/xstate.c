/*
 * Lets a User-Mode Linux whose buffer for vector registers is smaller than this machine's run on it.
 *
 * UML saves and restores the registers of its processes with PTRACE_GETREGSET and PTRACE_SETREGSET for NT_X86_XSTATE,
 * and up to Linux 6.11 it does so with a buffer of fixed size (2696 bytes: everything up to AVX-512 and PKRU). The
 * host's kernel lets a prefix be read, but only the whole be written, and on a CPU with AMX the whole is 11008 bytes:
 * the first write fails and UML dies. Preloaded into linux.uml, this makes a whole of the prefix.
 *
 * Nothing is lost by it. Of what lies behind the prefix, AMX's tiles, no process of the guest can ever have anything: the
 * host hands out tiles on request only (arch_prctl ARCH_REQ_XCOMP_PERM), the request is the host's system call, and a
 * process of the guest makes only the guest's, whose kernel refuses it. So those components are always in their initial
 * state, which is what a clear bit in XSTATE_BV says (Intel SDM volume 1, 13.4). A component that lies in the prefix
 * by half is written as initial too, but none does: a UML with another buffer would have been built for another CPU.
 *
 * Where the buffer is large enough, every call passes unchanged.
 */
#define _GNU_SOURCE
#include <cpuid.h>
#include <dlfcn.h>
#include <elf.h>
#include <errno.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/uio.h>

/* Where the XSAVE header with XSTATE_BV is, and how long the legacy region before it and the header are. */
#define XSTATE_BV 512
#define EXTENDED 576

typedef long ptrace_call(int request, ...);

/*
 * Not on the stack: UML calls from its kernel stacks, which are small. One is enough: UML has one CPU and does not
 * preempt itself here. Larger than any XSAVE area there is.
 */
static _Alignas(64) unsigned char whole[64 * 1024];

/* The components that lie within the first `length` bytes of an XSAVE area in standard format. */
static uint64_t components_within(size_t length)
{
	uint64_t within = 3; /* x87 and SSE are in the legacy region. */
	for (unsigned int component = 2; component < 63; component++) {
		unsigned int size, offset, c, d;
		if (__get_cpuid_count(0xd, component, &size, &offset, &c, &d) && size && offset + size <= length)
			within |= UINT64_C(1) << component;
	}
	return within;
}

static long set_whole(ptrace_call *next, long pid, const struct iovec *part)
{
	static uint64_t within;
	static size_t within_length;
	struct iovec all = { whole, sizeof whole };
	uint64_t present;

	/* How long is the whole? The read says. */
	if (part->iov_len < EXTENDED || next(PTRACE_GETREGSET, pid, NT_X86_XSTATE, &all) < 0 || all.iov_len <= part->iov_len)
		return next(PTRACE_SETREGSET, pid, NT_X86_XSTATE, part);

	if (within_length != part->iov_len) {
		within = components_within(part->iov_len);
		within_length = part->iov_len;
	}
	memset(whole, 0, all.iov_len);
	memcpy(whole, part->iov_base, part->iov_len);
	memcpy(&present, whole + XSTATE_BV, sizeof present);
	present &= within;
	memcpy(whole + XSTATE_BV, &present, sizeof present);
	return next(PTRACE_SETREGSET, pid, NT_X86_XSTATE, &all);
}

long ptrace(enum __ptrace_request request, ...)
{
	static ptrace_call *next;
	va_list arguments;
	long pid, data;
	void *address;

	va_start(arguments, request);
	pid = va_arg(arguments, int);
	address = va_arg(arguments, void *);
	data = va_arg(arguments, long);
	va_end(arguments);
	if (!next)
		next = (ptrace_call *)dlsym(RTLD_NEXT, "ptrace");
	if (request == PTRACE_SETREGSET && (uintptr_t)address == NT_X86_XSTATE)
		return set_whole(next, pid, (const struct iovec *)data);
	return next(request, (int)pid, address, data);
}
