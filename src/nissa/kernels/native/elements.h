/* Loops over the elements of a block, for one floating-point type. Include it after defining:

   NAME(x)          name of a function for this type
   REAL             the type
   BITS, UNSIGNED   integers of its size
   INDEX            unsigned integer that holds a bucket index
   FRACTION, TOP    number of fraction bits, and the shift that leaves the sign bit

   and a function `NAME(load)`, which returns the values of a block of a dtype.

   Numbers are compared by their bits. The bits of a magnitude, read as an integer, grow with the magnitude. Comparisons of
   integers are therefore exact, also for subnormals, and infinity and NaN are above all finite numbers. */

#define MASK ((BITS)(~(UNSIGNED)0 >> 1))
#define INFINITE (MASK >> FRACTION << FRACTION)
#define HISTOGRAMS ((int)(sizeof(uint64_t) / sizeof(INDEX)))

INLINE int64_t NAME(scratch)(const Tables *tables) { return HISTOGRAMS * tables->indexes * (int64_t)sizeof(uint32_t); }

INLINE BITS NAME(bits)(REAL value) {
  BITS bits;
  memcpy(&bits, &value, sizeof bits);
  return bits;
}

/* Add a block to the statistics; return whether it has an element that is not finite, and was not added. */
INLINE int NAME(reduce)(const REAL *values, int64_t size, const Tables *tables, Found *found) {
  const BITS below = (BITS)tables->below, above = (BITS)tables->above;
  double total = 0, abs_total = 0, squares = 0;
  BITS zeros = 0, vanishing = 0, exploding = 0, least = MASK, most = (BITS)~MASK;
  UNSIGNED smallest = ~(UNSIGNED)0; /* less one, so that zero is the largest */
  for (int64_t i = 0; i < size; i++) {
    const BITS bits = NAME(bits)(values[i]), magnitude = bits & MASK;
    const double value = values[i];
    total += value;
    abs_total += fabs(value);
    squares += value * value;
    const UNSIGNED less_one = (UNSIGNED)magnitude - 1;
    smallest = less_one < smallest ? less_one : smallest;
    zeros += magnitude == 0;
    vanishing += magnitude <= below;
    exploding += magnitude > above;
    const BITS ordered = bits ^ ((bits >> TOP) & MASK); /* grows with the number, negative ones included */
    least = ordered < least ? ordered : least;
    most = ordered > most ? ordered : most;
  }
  if (most >= INFINITE || least <= (BITS)~INFINITE) return 1;
  const BITS extremes[2] = {least ^ ((least >> TOP) & MASK), most ^ ((most >> TOP) & MASK)};
  REAL numbers[2];
  memcpy(numbers, extremes, sizeof numbers);
  add_block(found, (Found){total, abs_total, squares, numbers[0], numbers[1], size, zeros, vanishing, exploding,
                           zeros == size ? NO_MAGNITUDE : (int64_t)smallest + 1});
  return 0;
}

/* Return the bucket index of a magnitude. The octaves of all normal numbers have the same edges: adding the entry of its cell
   to the bits of a magnitude carries into the upper bits exactly if the magnitude is above the edge in that cell. The upper
   bits are then the index. */
INLINE INDEX NAME(index)(BITS magnitude, const Tables *tables) {
  const BITS *octave = tables->octave;
  const BITS cell = (magnitude >> (FRACTION - tables->cell_bits)) & (((BITS)1 << tables->cell_bits) - 1);
  return (INDEX)((magnitude + octave[cell]) >> (FRACTION - tables->scale));
}

/* Count the indexes of a block. Elements next to each other are often in the same bucket: with several histograms, an
   increment need not wait for the one before it. */
INLINE void NAME(count)(const INDEX *indexes, int64_t size, uint32_t *histograms, int64_t length) {
  int64_t i = 0;
  for (; i + HISTOGRAMS <= size; i += HISTOGRAMS) {
    uint64_t loaded; /* one load for all of them */
    memcpy(&loaded, indexes + i, sizeof loaded);
    for (int j = 0; j < HISTOGRAMS; j++)
      histograms[j * length + (INDEX)(loaded >> (8 * sizeof(INDEX) * (unsigned)j))]++;
  }
  for (; i < size; i++) histograms[indexes[i]]++;
}

/* Load a block, add it to the statistics and write its indexes; return whether it has elements that are not finite, and was
   not added. There is a version for each set of vector instructions. */
INLINE int NAME(process)(const char *data, int64_t dtype, int64_t size, const Tables *tables, Found *found, INDEX *indexes) {
  REAL decoded[BLOCK];
  const REAL *values = NAME(load)(data, dtype, size, decoded);
  if (NAME(reduce)(values, size, tables, found)) return 1;
  for (int64_t i = 0; i < size && tables->indexes; i++) indexes[i] = NAME(index)(NAME(bits)(values[i]) & MASK, tables);
  return 0;
}

static int NAME(process_portable)(const char *data, int64_t dtype, int64_t size, const Tables *tables, Found *found,
                                  INDEX *indexes) {
  return NAME(process)(data, dtype, size, tables, found, indexes);
}

#ifdef AVX512
AVX2 static int NAME(process_avx2)(const char *data, int64_t dtype, int64_t size, const Tables *tables, Found *found,
                                   INDEX *indexes) {
  return NAME(process)(data, dtype, size, tables, found, indexes);
}

AVX512 static int NAME(process_avx512)(const char *data, int64_t dtype, int64_t size, const Tables *tables, Found *found,
                                       INDEX *indexes) {
  return NAME(process)(data, dtype, size, tables, found, indexes);
}
#endif

static int (*NAME(block))(const char *, int64_t, int64_t, const Tables *, Found *, INDEX *) = NAME(process_portable);

/* Add the finite elements of a block that also has others. */
static void NAME(add_finite)(const REAL *values, int64_t size, const Tables *tables, Found *found, uint32_t *histogram) {
  for (int64_t i = 0; i < size; i++) {
    const BITS magnitude = NAME(bits)(values[i]) & MASK;
    if (magnitude >= INFINITE) continue;
    const double value = values[i];
    add_block(found, (Found){value, fabs(value), value * value, value, value, 1, magnitude == 0,
                             magnitude <= (BITS)tables->below, magnitude > (BITS)tables->above,
                             magnitude ? magnitude : NO_MAGNITUDE});
    if (tables->indexes) histogram[NAME(index)(magnitude, tables)]++;
  }
}

/* Move the subnormals of a block from the indexes of normal numbers, which they do not belong to, to their own columns. */
static void NAME(move_subnormals)(const REAL *values, int64_t size, const Tables *tables, uint32_t *histogram, Row row) {
  const BITS *edges = tables->edges;
  for (int64_t i = 0; i < size; i++) {
    const BITS magnitude = NAME(bits)(values[i]) & MASK;
    if (magnitude == 0 || magnitude >> FRACTION != 0) continue;
    histogram[NAME(index)(magnitude, tables)]--;
    int64_t slot = 0;
    while (slot < tables->edge_count && edges[slot] < magnitude) slot++;
    add_to(row, tables->column_of_slot[slot], 1);
  }
}

/* Add the bucket counts of a run to its row, and reset the histograms. */
static void NAME(finish)(const char *data, int64_t dtype, int64_t size, const Tables *tables, const Found *found,
                         uint32_t *histograms, Row row) {
  REAL decoded[BLOCK];
  const int64_t bytes = item_size(dtype);
  for (int i = 0; i < HISTOGRAMS; i++) histograms[i * tables->indexes] = 0; /* zeros have a column of their own */
  if (found->smallest == NO_MAGNITUDE) return;
  for (int64_t first = 0; found->smallest < (BITS)1 << FRACTION && first < size; first += BLOCK) {
    const int64_t length = size - first < BLOCK ? size - first : BLOCK;
    NAME(move_subnormals)(NAME(load)(data + first * bytes, dtype, length, decoded), length, tables, histograms, row);
  }
  const REAL largest = (REAL)(found->maximum > -found->minimum ? found->maximum : -found->minimum);
  fold(tables, HISTOGRAMS, histograms, row, NAME(index)((BITS)found->smallest, tables),
       NAME(index)(NAME(bits)(largest), tables));
}

/* Add a run to the statistics, and its bucket counts to its row. The histograms are all zero before and after. */
static void NAME(scan)(const char *data, int64_t dtype, int64_t size, const Tables *tables, Found *found,
                       uint32_t *histograms, Row row) {
  REAL decoded[BLOCK];
  INDEX indexes[BLOCK];
  const int64_t bytes = item_size(dtype);
  for (int64_t first = 0; first < size; first += BLOCK) {
    const int64_t length = size - first < BLOCK ? size - first : BLOCK;
    const char *block = data + first * bytes;
    /* While indexes are counted, memory is idle. Request the next block, which the hardware does not beyond a page. */
    for (int64_t ahead = BLOCK * bytes; ahead < 2 * BLOCK * bytes && first + BLOCK < size; ahead += LINE)
      __builtin_prefetch(block + ahead);
    if (NAME(block)(block, dtype, length, tables, found, indexes))
      NAME(add_finite)(NAME(load)(block, dtype, length, decoded), length, tables, found, histograms);
    else if (tables->indexes)
      NAME(count)(indexes, length, histograms, tables->indexes);
  }
  if (tables->indexes) NAME(finish)(data, dtype, size, tables, found, histograms, row);
}

#undef MASK
#undef INFINITE
#undef HISTOGRAMS
