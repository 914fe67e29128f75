// Marks what the shared library exports; everything else is hidden.
#pragma once

#define OCTAVO_EXPORT __attribute__((visibility("default")))
// Keeps a private member of an exported class out of the exports.
#define OCTAVO_HIDDEN __attribute__((visibility("hidden")))
