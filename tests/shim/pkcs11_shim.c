/* A PKCS#11 module that stands before another one and breaks on command.
 *
 * SHIM_MODULE   the module behind it
 * SHIM_CONTROL  a file whose first word says what breaks now; empty: nothing
 *                 hang          C_SignInit waits until the word changes
 *                 lost          the next C_SignInit closes every session, once
 *                 removed       the token is gone: no slot, no session, no answer
 *                 device_error  C_SignInit answers CKR_DEVICE_ERROR
 *                 final_try     the token warns of its last try
 *                 locked        the token says that its PIN is locked
 * SHIM_LOG      a file that gets a line for each C_Initialize, C_Finalize, C_Login
 *
 * Only what the shim itself touches is declared: a function list is two version bytes and 68
 * pointers (PKCS#11 2.40, section 3.6), and every argument fits a register.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef unsigned long word;
typedef word (*call)(word, word, word, word, word, word, word, word);

struct list {
    unsigned char version[2];
    call function[68];
};

enum { INITIALIZE = 0, FINALIZE = 1, GET_SLOT_LIST = 4, GET_TOKEN_INFO = 6,
       OPEN_SESSION = 12, CLOSE_ALL = 14, LOGIN = 18, FIND_INIT = 26, SIGN_INIT = 42 };

enum { OK = 0, DEVICE_ERROR = 0x30, DEVICE_REMOVED = 0x32, TOKEN_NOT_PRESENT = 0xe0 };

static struct list ours;
static struct list *theirs;
static _Atomic word slot;
static atomic_int lost_done;

static int mode_is(const char *wanted)
{
    char word_now[32] = "";
    FILE *file = fopen(getenv("SHIM_CONTROL"), "r");
    if (file == NULL)
        return 0;
    if (fscanf(file, "%31s", word_now) != 1)
        word_now[0] = 0;
    fclose(file);
    return strcmp(word_now, wanted) == 0;
}

static void note(const char *line)
{
    FILE *file = fopen(getenv("SHIM_LOG"), "a");
    if (file == NULL)
        return;
    fputs(line, file);
    fclose(file);
}

static void close_all(void)
{
    theirs->function[CLOSE_ALL](slot, 0, 0, 0, 0, 0, 0, 0);
}

#define ARGUMENTS word a, word b, word c, word d, word e, word f, word g, word h
#define FORWARD(index) theirs->function[index](a, b, c, d, e, f, g, h)

static word initialize(ARGUMENTS)
{
    note("initialize\n");
    return FORWARD(INITIALIZE);
}

static word finalize(ARGUMENTS)
{
    note("finalize\n");
    return FORWARD(FINALIZE);
}

static word login(ARGUMENTS)
{
    note("login\n");
    return FORWARD(LOGIN);
}

static word get_slot_list(ARGUMENTS)
{
    if (mode_is("removed")) {
        *(word *)c = 0;
        return OK;
    }
    return FORWARD(GET_SLOT_LIST);
}

static word get_token_info(ARGUMENTS)
{
    if (mode_is("removed"))
        return TOKEN_NOT_PRESENT;
    word result = FORWARD(GET_TOKEN_INFO);
    /* The flags follow label[32], manufacturer[32], model[16] and serial[16]. */
    word *flags = (word *)(b + 96);
    if (result == OK && mode_is("final_try"))
        *flags |= 0x20000;
    if (result == OK && mode_is("locked"))
        *flags |= 0x40000;
    return result;
}

static word open_session(ARGUMENTS)
{
    if (mode_is("removed"))
        return TOKEN_NOT_PRESENT;
    slot = a;
    return FORWARD(OPEN_SESSION);
}

static word find_init(ARGUMENTS)
{
    return mode_is("removed") ? DEVICE_REMOVED : FORWARD(FIND_INIT);
}

static word sign_init(ARGUMENTS)
{
    while (mode_is("hang"))
        usleep(10000);
    if (mode_is("device_error"))
        return DEVICE_ERROR;
    if (mode_is("removed")) {
        close_all();
        return DEVICE_REMOVED;
    }
    if (mode_is("lost")) {
        if (!atomic_exchange(&lost_done, 1))
            close_all();
    } else {
        lost_done = 0;
    }
    return FORWARD(SIGN_INIT);
}

word C_GetFunctionList(struct list **out)
{
    if (theirs == NULL) {
        void *module = dlopen(getenv("SHIM_MODULE"), RTLD_NOW | RTLD_LOCAL);
        if (module == NULL)
            return DEVICE_ERROR;
        word (*get)(struct list **) = (word (*)(struct list **))dlsym(module, "C_GetFunctionList");
        if (get == NULL || get(&theirs) != OK)
            return DEVICE_ERROR;
        ours = *theirs;
        ours.function[INITIALIZE] = initialize;
        ours.function[FINALIZE] = finalize;
        ours.function[GET_SLOT_LIST] = get_slot_list;
        ours.function[GET_TOKEN_INFO] = get_token_info;
        ours.function[OPEN_SESSION] = open_session;
        ours.function[LOGIN] = login;
        ours.function[FIND_INIT] = find_init;
        ours.function[SIGN_INIT] = sign_init;
    }
    *out = &ours;
    return OK;
}
