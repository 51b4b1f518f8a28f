// Figures as PDF and PNG, by librsvg and cairo.
#include <cairo-pdf.h>
#include <librsvg/rsvg.h>

#include <memory>

#include "analysis/report/figures.h"
#include "lib/core/error.h"
#include "lib/core/text.h"

namespace moe {
namespace {

constexpr double points_an_inch = 72;
constexpr double dots_an_inch = 300;

cairo_status_t append(void* to, const unsigned char* data, unsigned int length) {
  static_cast<std::string*>(to)->append(reinterpret_cast<const char*>(data), length);
  return CAIRO_STATUS_SUCCESS;
}

struct Size {
  double width = 0, height = 0;
};

// Draws the figure into a surface that `make` opens for its size in inches.
template <class Make, class Finish>
std::string drawn(const Figure& f, double units_an_inch, const Make& make, const Finish& finish) {
  GError* trouble = nullptr;
  const std::unique_ptr<RsvgHandle, void (*)(void*)> handle(
      rsvg_handle_new_from_data(reinterpret_cast<const guint8*>(f.svg.data()), f.svg.size(),
                                &trouble),
      g_object_unref);
  if (!handle) {
    const std::string why = trouble ? trouble->message : "no reason given";
    g_clear_error(&trouble);
    throw Error(Exit::bug, concat("figure '", f.name, "' is no SVG: ", why));
  }
  rsvg_handle_set_dpi(handle.get(), units_an_inch);
  Size size;
  rsvg_handle_get_intrinsic_size_in_pixels(handle.get(), &size.width, &size.height);
  std::string out;
  cairo_surface_t* surface = make(size, out);
  cairo_t* cairo = cairo_create(surface);
  const RsvgRectangle whole{0, 0, size.width, size.height};
  rsvg_handle_render_document(handle.get(), cairo, &whole, &trouble);
  cairo_destroy(cairo);
  finish(surface, out);
  cairo_surface_destroy(surface);
  g_clear_error(&trouble);
  return out;
}

}  // namespace

bool can_render_figures() {
  return true;
}

std::string figure_pdf(const Figure& f) {
  return drawn(
      f, points_an_inch,
      [](const Size& s, std::string& out) {
        cairo_surface_t* surface =
            cairo_pdf_surface_create_for_stream(append, &out, s.width, s.height);
        // no time of making: the same bytes for the same figure
        cairo_pdf_surface_set_metadata(surface, CAIRO_PDF_METADATA_CREATE_DATE,
                                       "1970-01-01T00:00:00Z");
        return surface;
      },
      [](cairo_surface_t* surface, std::string&) { cairo_surface_finish(surface); });
}

std::string figure_png(const Figure& f) {
  return drawn(
      f, dots_an_inch,
      [](const Size& s, std::string&) {
        return cairo_image_surface_create(CAIRO_FORMAT_RGB24, int(s.width + 0.5),
                                          int(s.height + 0.5));
      },
      [](cairo_surface_t* surface, std::string& out) {
        cairo_surface_write_to_png_stream(surface, append, &out);
      });
}

}  // namespace moe
