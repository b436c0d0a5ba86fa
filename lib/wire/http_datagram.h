/* What stands in front of the payload of an HTTP Datagram.
 *
 * In a QUIC DATAGRAM frame:  quarter stream ID, context ID, payload  (RFC 9297 section 2.1, RFC 9298 section
 * 5) In a DATAGRAM capsule:     context ID, payload
 */
#ifndef RELAY_WIRE_HTTP_DATAGRAM_H
#define RELAY_WIRE_HTTP_DATAGRAM_H

#include <stddef.h>
#include <stdint.h>

/* The context ID that means "the payload is a UDP payload" or "an IP packet" (RFC 9298 section 5, RFC 9484
 * section 6). */
#define RELAY_CONTEXT_PAYLOAD 0
/* A UDP payload longer than this MUST abort the stream (RFC 9298 section 5). */
#define RELAY_UDP_PAYLOAD_MAX 65527
/* Quarter stream IDs beyond this name no stream (RFC 9297 section 2.1). */
#define RELAY_QUARTER_STREAM_ID_MAX ((UINT64_C(1) << 60) - 1)
/* The most that both IDs take. */
#define RELAY_HTTP_DATAGRAM_HEAD_MAX 16

/* Reads the context ID of an HTTP Datagram. Returns where the payload begins (the payload may be empty), or 0
 * if the datagram is empty or the ID is cut: malformed, drop it or abort the stream (RFC 9298 section 5). */
size_t relay_http_datagram_read(const uint8_t *p, size_t len, uint64_t *context_id);

/* Writes the context ID (at most RELAY_VARINT_MAX) and returns where the payload goes. */
uint8_t *relay_http_datagram_write(uint8_t *p, uint64_t context_id);

/* Reads the quarter stream ID at the beginning of a QUIC DATAGRAM frame's data into a stream ID (always one
 * of a client-initiated bidirectional stream). Returns the bytes it took, or one of these, which both close
 * the connection with H3_DATAGRAM_ERROR (RFC 9297 section 2.1): RELAY_ERR_INCOMPLETE  empty, or the integer
 * is cut, RELAY_ERR_INVALID     larger than RELAY_QUARTER_STREAM_ID_MAX.
 * `*stream_id` is left alone then. */
int relay_quarter_stream_id_read(const uint8_t *p, size_t len, int64_t *stream_id);

/* Bytes that the quarter stream ID of this stream takes, and writing it (returns the end). `stream_id` must
 * be a client-initiated bidirectional stream: a multiple of four. */
size_t relay_quarter_stream_id_size(int64_t stream_id);
uint8_t *relay_quarter_stream_id_write(uint8_t *p, int64_t stream_id);

#endif
