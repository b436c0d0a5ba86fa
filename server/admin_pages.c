#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/net/log.h"
#include "server/admin.h"

/* Where each line of the X-macros lies in struct relay_metrics. */
struct line {
    size_t offset;
    const char *field, *name, *labels, *help;
};

static const struct line counters[] = {
#define X(field, name, labels, help) {offsetof(struct relay_metrics, field), #field, name, labels, help},
    RELAY_COUNTERS(X)
#undef X
};

static const struct line gauges[] = {
#define X(field, name, labels, help) {offsetof(struct relay_metrics, field), #field, name, labels, help},
    RELAY_GAUGES(X)
#undef X
};

static const struct line histograms[] = {
#define X(field, name, help) {offsetof(struct relay_metrics, field), #field, name, "", help},
    RELAY_HISTOGRAMS(X)
#undef X
};

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* Sums one 64-bit word over the shards; gauges are signed, and so sum right in two's complement. */
static uint64_t sum(const struct relay_admin_source *source, size_t offset)
{
    uint64_t total = 0;
    for (size_t i = 0; i < source->num_shards; i++)
        total +=
            __atomic_load_n((const uint64_t *)((const char *)source->shards[i] + offset), __ATOMIC_RELAXED);
    return total;
}

static void print_head(FILE *out, const struct line *line, const struct line *before, const char *type)
{
    if (before != NULL && strcmp(before->name, line->name) == 0)
        return;
    fprintf(out, "# HELP %s %s\n# TYPE %s %s\n", line->name, line->help, line->name, type);
}

static void print_value(FILE *out, const struct line *line, int64_t value)
{
    if (line->labels[0] != '\0')
        fprintf(out, "%s{%s} %" PRId64 "\n", line->name, line->labels, value);
    else
        fprintf(out, "%s %" PRId64 "\n", line->name, value);
}

static void print_histogram(FILE *out, const struct relay_admin_source *source, const struct line *line)
{
    uint64_t total = 0;
    double bound = 0.001;
    for (size_t i = 0; i <= RELAY_HISTOGRAM_BUCKETS; i++, bound *= 2) {
        total += sum(source, line->offset + offsetof(struct relay_histogram, buckets) + i * sizeof(uint64_t));
        if (i < RELAY_HISTOGRAM_BUCKETS)
            fprintf(out, "%s_bucket{le=\"%g\"} %" PRIu64 "\n", line->name, bound, total);
        else
            fprintf(out, "%s_bucket{le=\"+Inf\"} %" PRIu64 "\n", line->name, total);
    }
    uint64_t ns = sum(source, line->offset + offsetof(struct relay_histogram, sum_ns));
    fprintf(out, "%s_sum %.6f\n%s_count %" PRIu64 "\n", line->name, (double)ns / 1e9, line->name, total);
}

char *relay_admin_metrics_text(const struct relay_admin_source *source, size_t *len)
{
    char *text = NULL;
    FILE *out = open_memstream(&text, len);
    if (out == NULL)
        return NULL;
    for (size_t i = 0; i < COUNT(counters); i++) {
        print_head(out, &counters[i], i > 0 ? &counters[i - 1] : NULL, "counter");
        print_value(out, &counters[i], (int64_t)sum(source, counters[i].offset));
    }
    for (size_t i = 0; i < COUNT(gauges); i++) {
        print_head(out, &gauges[i], i > 0 ? &gauges[i - 1] : NULL, "gauge");
        print_value(out, &gauges[i], (int64_t)sum(source, gauges[i].offset));
    }
    for (size_t i = 0; i < COUNT(histograms); i++) {
        print_head(out, &histograms[i], NULL, "histogram");
        print_histogram(out, source, &histograms[i]);
    }
    fprintf(out,
            "# HELP twohop_log_lines_dropped_total Log lines that could not be written\n"
            "# TYPE twohop_log_lines_dropped_total counter\ntwohop_log_lines_dropped_total %lu\n",
            relay_log_dropped());
    fprintf(out,
            "# HELP twohop_info Version and role\n# TYPE twohop_info "
            "gauge\ntwohop_info{version=\"%s\",role=\"%s\"} 1\n",
            TWOHOP_VERSION, source->role);
    return fclose(out) == 0 ? text : (free(text), NULL);
}

static void add_lines(json_t *object, const struct relay_admin_source *source, const struct line *lines,
                      size_t count)
{
    for (size_t i = 0; i < count; i++)
        json_object_set_new(object, lines[i].field, json_integer((json_int_t)sum(source, lines[i].offset)));
}

char *relay_admin_status_json(const struct relay_admin_source *source, uint64_t now, size_t *len)
{
    json_t *counts = json_object(), *open = json_object();
    add_lines(counts, source, counters, COUNT(counters));
    add_lines(open, source, gauges, COUNT(gauges));
    json_t *status =
        json_pack("{s:s, s:s, s:I, s:i, s:b, s:o, s:o, s:I}", "version", TWOHOP_VERSION, "role", source->role,
                  "uptime_seconds", (json_int_t)((now - source->started_at) / RELAY_SECOND), "workers",
                  (int)source->num_shards - 1, "draining", source->is_draining, "open", open, "totals",
                  counts, "log_lines_dropped", (json_int_t)relay_log_dropped());
    char *text = NULL;
    FILE *out = status != NULL ? open_memstream(&text, len) : NULL;
    bool is_complete = out != NULL && json_dumpf(status, out, JSON_INDENT(2)) == 0 && fputc('\n', out) != EOF;
    json_decref(status);
    if ((out != NULL && fclose(out) != 0) || !is_complete) {
        free(text);
        return NULL;
    }
    return text;
}
