/* JSON log lines, one object per line: {"time":"...","level":"info","event":"ready", ...}. Any thread may
 * log.
 *
 * What a line may say is a matter of privacy (threats section 3): the ingress logs no target beyond the
 * egress's name, the egress logs no client; no token, nonce, inner name or errno text of a target. At
 * RELAY_LOG_INFO and above no line is about one tunnel: the logs of two hops cannot be joined (T71). Every
 * value that came from a peer is a JSON string made by jansson: escaped, one line; a line over 4 KiB is
 * dropped and counted (T70).
 */
#ifndef RELAY_NET_LOG_H
#define RELAY_NET_LOG_H

enum relay_log_level { RELAY_LOG_DEBUG, RELAY_LOG_INFO, RELAY_LOG_WARNING, RELAY_LOG_ERROR };

/* `format` and the rest as for json_pack without the braces: relay_log(RELAY_LOG_INFO, "listening", "s:s,
 * s:i", "address", text, "port", 443). NULL: no more fields. A line that cannot be written is dropped and
 * counted; nobody waits for it. */
void relay_log(enum relay_log_level level, const char *event, const char *format, ...);
void relay_log_set_level(enum relay_log_level level);
enum relay_log_level relay_log_get_level(void);
/* Lines go to this descriptor (2 at first). It is the caller's. */
void relay_log_set_fd(int fd);
/* Lines at error level go to this one as well; -1, at first: to none. For a start, which is not to fail in silence
 * because its reason stands in a file. */
void relay_log_copy_errors(int fd);
/* Lines that could not be written since the start, and one more of them: of another log. */
unsigned long relay_log_dropped(void);
void relay_log_count_dropped(void);

#endif
