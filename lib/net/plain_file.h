/* Files that an operator or a user names: a configuration, tokens, certificates, keys.
 *
 * A named pipe (FIFO) makes open() wait for a writer who may never come, and a device may give no end: a start, or a
 * reload in the thread of the signals, would hang without a word. So what is no plain file is refused before it is
 * opened. */
#ifndef RELAY_NET_PLAIN_FILE_H
#define RELAY_NET_PLAIN_FILE_H

enum relay_plain_file_use {
    RELAY_PLAIN_FILE_ONLY,
    /* Also a pipe that this process was given with its writer at work (the shell's <(command), /dev/stdin): it is read
     * once, at the start, and no name leads to it. */
    RELAY_PLAIN_FILE_OR_GIVEN_PIPE,
};

/* What stands there in its place ("a named pipe", "a device", "a folder" ...), static. NULL: it may be opened; also when
 * nothing is there, or nobody may look, which open() says better. */
const char *relay_plain_file_refusal(const char *path, enum relay_plain_file_use use);

#endif
