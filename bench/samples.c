/* Latencies, kept whole: a histogram would round the ones that matter. */
#include <stdlib.h>

#include "load.h"

void samples_add(struct samples *samples, uint64_t value)
{
    if (samples->count == samples->room) {
        samples->room = samples->room ? 2 * samples->room : 1 << 16;
        samples->values = realloc(samples->values, samples->room * sizeof *samples->values);
        if (samples->values == NULL)
            die("memory");
    }
    samples->values[samples->count++] = value;
}

static int compare(const void *left, const void *right)
{
    uint64_t a = *(const uint64_t *)left, b = *(const uint64_t *)right;
    return (a > b) - (a < b);
}

void samples_sort(struct samples *samples)
{
    if (samples->count > 0)
        qsort(samples->values, samples->count, sizeof *samples->values, compare);
}

uint64_t samples_quantile(const struct samples *samples, double share)
{
    if (samples->count == 0)
        return 0;
    return samples->values[(size_t)((double)(samples->count - 1) * share)];
}
