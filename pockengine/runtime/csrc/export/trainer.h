/* This trainer: its memory, its kernels, and how it is opened. trainer_tables.h lists its entry points. */
#ifndef TRAINER_H
#define TRAINER_H

#include "pockengine.h"
#include "trainer_tables.h"

/* Binds the tables, the kernels and the static memory; 0 or a code of enum pe_code. A NULL launcher
 * runs on the caller's thread alone. */
int32_t trainer_open(pe_trainer* self, const pe_launcher* launcher);

/* What is to be kept over a restart: trainer_param (TRAINER_PARAM_BYTES) and trainer_state
 * (TRAINER_STATE_BYTES). Copy them out after a step; copy them back ahead of the next. */

#endif
