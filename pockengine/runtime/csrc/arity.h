/* Calls a kernel of n operands, n = 1 .. PE_MAX_OPERANDS, as C wants to know n when it compiles. */
#ifndef POCKENGINE_ARITY_H
#define POCKENGINE_ARITY_H

/* PE_TYPES_n: the types of n operands. PE_ARGS_n: a[0] .. a[n-1]. */
#define PE_TYPES_1 void*
#define PE_TYPES_2 PE_TYPES_1, void*
#define PE_TYPES_3 PE_TYPES_2, void*
#define PE_TYPES_4 PE_TYPES_3, void*
#define PE_TYPES_5 PE_TYPES_4, void*
#define PE_TYPES_6 PE_TYPES_5, void*
#define PE_TYPES_7 PE_TYPES_6, void*
#define PE_TYPES_8 PE_TYPES_7, void*
#define PE_TYPES_9 PE_TYPES_8, void*
#define PE_TYPES_10 PE_TYPES_9, void*
#define PE_TYPES_11 PE_TYPES_10, void*
#define PE_TYPES_12 PE_TYPES_11, void*
#define PE_TYPES_13 PE_TYPES_12, void*
#define PE_TYPES_14 PE_TYPES_13, void*
#define PE_TYPES_15 PE_TYPES_14, void*
#define PE_TYPES_16 PE_TYPES_15, void*
#define PE_TYPES_17 PE_TYPES_16, void*
#define PE_TYPES_18 PE_TYPES_17, void*
#define PE_TYPES_19 PE_TYPES_18, void*
#define PE_TYPES_20 PE_TYPES_19, void*
#define PE_TYPES_21 PE_TYPES_20, void*
#define PE_TYPES_22 PE_TYPES_21, void*
#define PE_TYPES_23 PE_TYPES_22, void*
#define PE_TYPES_24 PE_TYPES_23, void*
#define PE_TYPES_25 PE_TYPES_24, void*
#define PE_TYPES_26 PE_TYPES_25, void*
#define PE_TYPES_27 PE_TYPES_26, void*
#define PE_TYPES_28 PE_TYPES_27, void*
#define PE_TYPES_29 PE_TYPES_28, void*
#define PE_TYPES_30 PE_TYPES_29, void*
#define PE_TYPES_31 PE_TYPES_30, void*
#define PE_TYPES_32 PE_TYPES_31, void*
#define PE_ARGS_1 a[0]
#define PE_ARGS_2 PE_ARGS_1, a[1]
#define PE_ARGS_3 PE_ARGS_2, a[2]
#define PE_ARGS_4 PE_ARGS_3, a[3]
#define PE_ARGS_5 PE_ARGS_4, a[4]
#define PE_ARGS_6 PE_ARGS_5, a[5]
#define PE_ARGS_7 PE_ARGS_6, a[6]
#define PE_ARGS_8 PE_ARGS_7, a[7]
#define PE_ARGS_9 PE_ARGS_8, a[8]
#define PE_ARGS_10 PE_ARGS_9, a[9]
#define PE_ARGS_11 PE_ARGS_10, a[10]
#define PE_ARGS_12 PE_ARGS_11, a[11]
#define PE_ARGS_13 PE_ARGS_12, a[12]
#define PE_ARGS_14 PE_ARGS_13, a[13]
#define PE_ARGS_15 PE_ARGS_14, a[14]
#define PE_ARGS_16 PE_ARGS_15, a[15]
#define PE_ARGS_17 PE_ARGS_16, a[16]
#define PE_ARGS_18 PE_ARGS_17, a[17]
#define PE_ARGS_19 PE_ARGS_18, a[18]
#define PE_ARGS_20 PE_ARGS_19, a[19]
#define PE_ARGS_21 PE_ARGS_20, a[20]
#define PE_ARGS_22 PE_ARGS_21, a[21]
#define PE_ARGS_23 PE_ARGS_22, a[22]
#define PE_ARGS_24 PE_ARGS_23, a[23]
#define PE_ARGS_25 PE_ARGS_24, a[24]
#define PE_ARGS_26 PE_ARGS_25, a[25]
#define PE_ARGS_27 PE_ARGS_26, a[26]
#define PE_ARGS_28 PE_ARGS_27, a[27]
#define PE_ARGS_29 PE_ARGS_28, a[28]
#define PE_ARGS_30 PE_ARGS_29, a[29]
#define PE_ARGS_31 PE_ARGS_30, a[30]
#define PE_ARGS_32 PE_ARGS_31, a[31]

/* A case of a switch over the arity; `kernel`, `a`, `begin` and `end` are the caller's variables.
 */
#define PE_CASE(n) \
  case n: return ((int32_t (*)(PE_TYPES_##n, int64_t, int64_t))kernel)(PE_ARGS_##n, begin, end);

#endif
